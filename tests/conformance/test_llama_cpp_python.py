"""llama-cpp-python as it is without options: a newer request ends the one before, in what looks like success."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from conformance import scenario
from conformance.server import Running, Server
from conformance.servers.llama_cpp_python import LlamaCppPython

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.only("llama-cpp-python")]


class Interrupting(LlamaCppPython):
    """Its default."""

    options = ()


def test_a_reply_that_was_ended_for_another_is_no_success(server: Server, running: Running, tmp_path: Path) -> None:
    interrupting = Interrupting()
    with interrupting.running(tmp_path) as started:
        options = ("-u", "3", "-r", "3", "-t", "3s", "--output-tokens", "50", "--no-check")
        rows = scenario.run(interrupting, started, tmp_path, *options, exit_code=None).rows()
    ended = Counter((row["status"], row["error_class"]) for row in rows)
    assert ended["failed", "empty"] > 0
    assert set(ended) <= {("ok", ""), ("failed", "empty"), ("failed", "truncated")}
    first = next(number for number, row in enumerate(rows) if row["finish_reason"])
    assert {row["finish_reason"] for row in rows[first:] if row["status"] == "ok"} == {"length"}
