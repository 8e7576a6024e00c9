"""What --hardware and --server-metrics name: URLs, whose credentials, if they have any, come from the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from tokenswarm.errors import OptionError
from tokenswarm.scraping.messages import HARDWARE, LOCAL, SERVER_METRICS, TARGET, Source
from tokenswarm.transport.origin import Origin, Origins, parse_origin
from tokenswarm.variables import expand, names

EXAMPLES = {HARDWARE: "http://gpu1:9435, or local", SERVER_METRICS: "http://server:8000/metrics, or target"}
OPTIONS = {HARDWARE: "--hardware", SERVER_METRICS: "--server-metrics"}

WORDS = {HARDWARE: LOCAL, SERVER_METRICS: TARGET}


def parse_sources(file: str, urls: Iterable[str], environ: Mapping[str, str]) -> list[Source]:
    """Raises OptionError with everything that is wrong, a line each, and no credential in it."""
    sources, problems = [], []
    for url in urls:
        try:
            sources.append(_source(file, url, environ))
        except OptionError as error:
            problems.append(str(error))
    places = [source.url for source in sources]
    problems += [f"{OPTIONS[file]}: {url} is there twice" for url in {*places} if places.count(url) > 1]
    if problems:
        raise OptionError("\n".join(problems))
    return sources


def addressed(sources: Iterable[Source], origins: Origins, headers: Callable[[], dict[str, str]]) -> list[Source]:
    """The same with TARGET as the pages of these servers, each once. A page of a server under test is asked for as that
    is: with `headers()`. Raises what that does."""
    found: dict[tuple[str, str], Source] = {}
    under_test = {(origin.secure, origin.host, origin.port) for origin in origins.each}
    for source in sources:
        pages = list(map(_page_of, origins.each)) if source.url == TARGET else [source.url]
        for page in pages:
            if source.url == TARGET and (source.file, page) in found:
                continue  # as it was named itself, perhaps with a password of its own
            asked = msgspec.structs.replace(source, url=page)
            if source.file == SERVER_METRICS:
                origin = parse_origin(page)
                if (origin.secure, origin.host, origin.port) in under_test:
                    asked = msgspec.structs.replace(asked, headers=headers())
            found[source.file, page] = asked
    return list(found.values())


def _page_of(origin: Origin) -> str:
    """Where a server has its metrics, by custom."""
    scheme = "https" if origin.secure else "http"
    return f"{scheme}://{origin.netloc}{origin.base.removesuffix('/v1')}/metrics"


def password(url: str) -> str:
    """What stands for the password in a URL; empty without one."""
    return url.rpartition("@")[0].rpartition("/")[2].partition(":")[2]


def _source(file: str, text: str, environ: Mapping[str, str]) -> Source:
    option = OPTIONS[file]
    if text == WORDS[file]:
        return Source(file=file, url=text)
    scheme, mark, rest = text.partition("://")
    credentials, at, address = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    if at and names(password) != [password.strip("${}")]:
        raise OptionError(
            f"{option}: a credential on the command line ends up in logs and pages; put it into the environment "
            f"and write {scheme}://$NAME:$PASSWORD@{address}"
        )
    url = scheme + mark + address
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        sound = False
    if not sound:
        raise OptionError(f"{option} {url!r}: write it as {EXAMPLES[file]}")
    plain = url.partition("?")[0].partition("#")[0]
    if plain != url:  # a credential there would not be known for one
        raise OptionError(f"{option} {plain}: leave out the '?' or '#' and what follows it")
    url = url.rstrip("/")
    if file == SERVER_METRICS and not parts.path.strip("/"):
        url += "/metrics"
    return Source(file=file, url=url, user=expand(user, environ, option), password=expand(password, environ, option))
