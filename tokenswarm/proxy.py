"""What --proxy names: a URL whose credentials, if it has any, come from the environment."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from tokenswarm.errors import OptionError
from tokenswarm.variables import expand, names

SCHEMES: Final = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def url(text: str, environ: Mapping[str, str]) -> str:
    """The proxy's URL, variables expanded. In `http://$USER:$PASSWORD@host:port` they hold the plain text, which is
    percent-encoded here; a variable that holds a whole URL is taken as it is. Raises OptionError without any value."""
    scheme, mark, rest = text.partition("://")
    credentials, at, address = rest.rpartition("@")
    user, colon, password = credentials.partition(":")
    secret = password if colon else user
    if at and names(secret) != [secret.strip("${}")]:
        raise OptionError(
            "--proxy: a credential on the command line ends up in logs and pages; put it into the environment "
            f"and write {scheme}://$PROXY_USER:$PROXY_PASSWORD@{address}"
        )
    credentials = expand(credentials, environ, "--proxy", lambda value: quote(value, safe=""))
    expanded = expand(scheme + mark, environ, "--proxy") + credentials + at + expand(address, environ, "--proxy")
    given = text if "@" not in text else f"{scheme}://…@{address}"
    shown = repr(given) if not names(text) else f"{given!r}, its variables expanded"
    try:
        parts = urlsplit(expanded)
        sound = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port is not None
    except ValueError:
        sound = False
    if not sound or parts.path not in ("", "/") or parts.query or parts.fragment or not expanded.isprintable():
        raise OptionError(f"--proxy {shown}: write it as SCHEME://HOST:PORT, the scheme one of {', '.join(SCHEMES)}")
    return expanded.rstrip("/")


def secrets(expanded: str | None) -> set[str]:
    """What of an expanded URL no file of ours may hold, in each form in which a proxy could send it back."""
    if expanded is None:
        return set()
    parts = urlsplit(expanded)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    secret = password or user
    if not secret:
        return set()
    return {secret, quote(secret, safe=""), base64.b64encode(f"{user}:{password}".encode()).decode()}
