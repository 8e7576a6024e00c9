"""docs/servers.md shows what was seen."""

from conformance import page
from conformance.servers import SERVERS


def test_the_page_has_the_tables_of_what_was_seen() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, page.read()) == text


def test_every_server_has_its_line() -> None:
    assert set(page.read()) == {server.name for server in SERVERS}
