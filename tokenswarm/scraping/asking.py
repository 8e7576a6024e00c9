"""HTTP for the scraping process: one question, its answer in bounded time and bounded size."""

from __future__ import annotations

import time
from typing import Final

import requests
from requests.auth import HTTPBasicAuth
from urllib3.exceptions import HTTPError, ReadTimeoutError

from tokenswarm.record import one_line
from tokenswarm.scraping.messages import Source, Task

SECONDS: Final = 2.0
LIMIT: Final = 16 * 2**20


class NoAnswer(Exception):
    """A source did not answer, or not in a way that can be read; the text says how, for people."""


class Asker:
    """Asks one source, over one connection that is kept."""

    def __init__(self, source: Source, task: Task) -> None:
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no netrc that nobody named here
        self._session.verify = not task.insecure if task.ca_bundle is None else task.ca_bundle
        self._session.headers.update({name: value.encode() for name, value in source.headers.items()})
        if source.user or source.password:  # as bytes, or what is not in Latin-1 would be an error
            self._session.auth = HTTPBasicAuth(source.user.encode(), source.password.encode())

    def ask(self, url: str) -> tuple[bytes, int, int]:
        """(what came, CLOCK_MONOTONIC ns just before the question, and once its head had come). Raises NoAnswer."""
        sent = time.monotonic_ns()
        try:
            with self._session.get(url, timeout=SECONDS, stream=True, allow_redirects=False) as response:
                heard = time.monotonic_ns()
                body = self._body(response, sent)
        except (OSError, HTTPError) as error:  # those of requests are OSErrors, too
            raise NoAnswer(_reason(error)) from None
        if response.status_code != 200:
            words = one_line(body[:100].decode(errors="replace").strip())
            how = " (its URL takes them: http://NAME:$PASSWORD@HOST)" if response.status_code == 401 else ""
            raise NoAnswer(f"HTTP {response.status_code} {words}".rstrip() + how)
        return body, sent, heard

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _body(self, response: requests.Response, sent: int) -> bytes:
        body = bytearray()
        while piece := response.raw.read1(65_536, decode_content=True):  # whatever is there, and no wait for more
            body += piece
            if len(body) > LIMIT:
                raise NoAnswer(f"its answer is longer than {LIMIT >> 20} MiB")
            if time.monotonic_ns() - sent > 2 * SECONDS * 1e9:
                raise NoAnswer(f"its answer was not complete after {2 * SECONDS:g} s")
        return bytes(body)


def _reason(error: Exception) -> str:
    """The innermost cause, in its own words: what requests and urllib3 put around it says the same at length."""
    cause: BaseException = error
    while True:
        inner = getattr(cause, "reason", None) or cause.__cause__ or cause.__context__
        if not isinstance(inner, BaseException):
            break
        cause = inner
    if isinstance(error, (requests.Timeout, ReadTimeoutError)):
        return f"no answer within {SECONDS:g} s"
    text = getattr(cause, "strerror", None) or str(cause)
    return one_line(str(text))[:200]
