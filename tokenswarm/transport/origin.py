"""Where requests go: `--host` taken apart, once."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec

from tokenswarm.errors import OptionError

_SCHEMES = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SECURE = ("https", "wss")
WEBSOCKET_SCHEMES = ("ws", "wss")
_FUNCTION = "custom"


class Origin(msgspec.Struct, frozen=True):
    """A model server's address. `base` is the path before the protocol's own, without a slash at its end."""

    scheme: str
    host: str
    port: int
    base: str

    @property
    def netloc(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _SCHEMES[self.scheme] else f"{host}:{self.port}"

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken there."""
        return self.scheme in _SECURE

    @property
    def url(self) -> str:
        """The whole, for people."""
        if self.scheme == _FUNCTION:
            return f"{self.scheme}: {self.host}"
        return f"{self.scheme}://{self.netloc}{self.base}"

    def path(self, path: str) -> str:
        """A protocol's path under the base. A base that already ends in /v1, or in all of the path, as people paste it,
        is not doubled."""
        if self.base.endswith(path):
            return self.base
        if self.base.endswith("/v1") and path.startswith("/v1/"):
            return self.base + path[3:]
        return self.base + path


class Origins(msgspec.Struct, frozen=True):
    """The servers that a run's requests go to, in turn; at least one."""

    each: tuple[Origin, ...]

    @property
    def url(self) -> str:
        """The whole, for people, and as `--host` takes it."""
        return ",".join(origin.url for origin in self.each)

    def path(self, path: str) -> str:
        """A protocol's path, as the first of them has it."""
        return self.each[0].path(path)


def parse_origins(urls: str) -> Origins:
    """One URL or several, comma-separated. Raises OptionError, naming what is wrong with one of them."""
    given = [url for url in urls.split(",") if url.strip()]
    return Origins(tuple(map(parse_origin, given or [urls])))


def function_origins(path: str) -> Origins:
    """Where requests go that a function answers: the file that it is in."""
    return Origins((Origin(_FUNCTION, path, 0, ""),))


def is_address(host: str) -> bool:
    """Whether a host is written as an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_origin(url: str) -> Origin:
    """Raises OptionError, naming what is wrong with the URL."""
    text = url.strip()
    if "://" not in text:
        raise OptionError(f"--host {url!r}: begin it with http:// or https://, as in http://127.0.0.1:8000")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise OptionError(f"--host {url!r}: {error}") from None
    if parts.scheme not in _SCHEMES:
        raise OptionError(f"--host {url!r}: the scheme is {parts.scheme!r}; it must be http, https, ws or wss")
    if not parts.hostname:
        raise OptionError(f"--host {url!r}: no host name in it")
    if parts.username or parts.password:
        raise OptionError(
            "--host holds a user name or password: put the key into LLM_API_KEY in the environment instead"
        )
    if parts.query or parts.fragment:
        raise OptionError(f"--host {url!r}: leave out what follows '?' or '#'")
    return Origin(parts.scheme, parts.hostname, port or _SCHEMES[parts.scheme], parts.path.rstrip("/"))
