"""FastChat's worker, asked directly: the controller tells where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance import scenario
from conformance.page import Seen
from conformance.server import Running, Server
from conformance.servers.fastchat import CONTROLLER

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.only("FastChat")]


@pytest.mark.parametrize("options", [(), ("--no-stream",)], ids=["streamed", "whole"])
def test_the_worker_that_the_controller_names(
    server: Server, running: Running, seen: Seen, tmp_path: Path, options: tuple[str, ...]
) -> None:
    asked = ("--protocol", "fastchat-worker", "-u", "2", "-r", "2", "-t", "2s", "--output-tokens", "20", *options)
    process = scenario.run(server, running, tmp_path, *asked, host=running.url_of(CONTROLLER))
    rows = process.rows()
    assert len(rows) >= 2
    for row in rows:
        assert (row["status"], row["clock"], row["protocol"]) == ("ok", "kernel", "fastchat-worker")
        # It counts one token less than it made, and a count of none is no count.
        source = "" if options else "chunks"
        assert row["model"] == server.model
        assert row["token_source"] == "usage" or (row["token_source"] == source and int(row["output_chars"]) < 10)
        assert int(row["output_tokens"] or 0) <= 20
        assert int(row["output_chars"]) > 0
        assert bool(row["ttft_ms"]) != bool(options)
    seen["worker"] = f"{len(rows)} of {len(rows)} ok"


def test_a_model_that_no_worker_has(server: Server, running: Running, tmp_path: Path) -> None:
    asked = ("--protocol", "fastchat-worker", "--model", "no-such-model", "-u", "1", "-t", "1s")
    process = scenario.run(server, running, tmp_path, *asked, host=running.url_of(CONTROLLER), exit_code=2)
    assert "no worker for this model" in process.output
