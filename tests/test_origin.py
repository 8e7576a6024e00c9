"""A model server's address as people write and paste it."""

from __future__ import annotations

import pytest

from tokenswarm.errors import OptionError
from tokenswarm.transport.origin import parse_origin


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://a:1", "/v1/chat"),
        ("http://a:1/", "/v1/chat"),
        ("http://a:1/v1", "/v1/chat"),
        ("http://a:1/v1/", "/v1/chat"),
        ("http://a:1/x", "/x/v1/chat"),
        ("http://a:1/x/v1", "/x/v1/chat"),
    ],
)
def test_base_paths_as_people_paste_them(url: str, path: str) -> None:
    assert parse_origin(url).path("/v1/chat") == path


@pytest.mark.parametrize(
    "url", ["a:1", "ftp://a", "http://", "http://a:99999", "http://u:p@a", "http://a?x=1", "http://[::1", ""]
)
def test_bad_hosts_are_named(url: str) -> None:
    with pytest.raises(OptionError, match="--host"):
        parse_origin(url)


def test_ipv6_and_default_ports() -> None:
    assert parse_origin("http://[::1]:8000").netloc == "[::1]:8000"
    assert parse_origin("https://example.com").netloc == "example.com"
