"""Requests told apart, and questions that were asked again, in runs small enough to count by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker

from tokenswarm.results import console, read, report, summarise

SECONDS = 40


def retried(tmp_path: Path) -> Path:
    """Two servers, a question a second each; steady from 10 s on. Of the second server's every fourth fails, is asked
    again, and is answered, but for the last of all."""
    records = []
    for second in range(SECONDS):
        for server in ("10.0.0.1:80", "10.0.0.2:80"):
            fails = server == "10.0.0.2:80" and second % 4 == 3
            ttft = 0.1 if server == "10.0.0.1:80" else 0.3
            asked = maker.request(len(records), second, ttft, 0.5, remote_addr=server, name=f"of {server[7]}")
            if fails:
                asked = maker.failed(len(records), second, 0.1, "http_5xx", "no")
                asked.remote_addr, asked.name, asked.user_class = server, "of 2", "ChatUser"
            records.append(asked)
            if fails and second != SECONDS - 1:
                again = maker.request(len(records), second + 0.5, ttft, 0.4, remote_addr=server, name="of 2")
                again.parent = asked.id
                records.append(again)
    return maker.write(tmp_path, records, maker.boundaries(2, 0, SECONDS, SECONDS))


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    return summarise.summarise(read.load(retried(tmp_path)))


def test_servers_are_told_apart(summary: dict[str, Any]) -> None:
    second, first = summary["groups"]["remote_addr"]
    assert (first["value"], first["due"], first["ok"], first["failed"]) == ("10.0.0.1:80", 30, 30, 0)
    assert (second["value"], second["due"], second["ok"], second["failed"]) == ("10.0.0.2:80", 37, 29, 8)
    assert (first["ttft_ms"]["p50"], second["ttft_ms"]["p50"]) == (100.0, 300.0)
    assert (first["output_tokens"], second["output_tokens"]) == (30 * 11, 29 * 11)
    assert [group["value"] for group in summary["groups"]["name"]] == ["of 2", "of 1"]
    assert "user_class" not in summary["groups"], "there is one"


def test_questions_are_counted_over_their_retries(summary: dict[str, Any]) -> None:
    assert summary["questions"] == {"asked": 80, "answered": 79, "at_once": 70, "retries": 9}
    assert "80 questions in the whole run, 9 retries: 70 answered without any, 79 in the end, 1 never" in console.table(
        summary
    )


def test_console_and_report_show_them(tmp_path: Path) -> None:
    run = read.load(retried(tmp_path))
    summary = summarise.summarise(run)
    lines = console.table(summary).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("By server"))
    assert lines[at + 1].split()[:4] == ["10.0.0.2:80", "37", "29", "300"]
    assert lines[at + 2].split()[:4] == ["10.0.0.1:80", "30", "30", "100"]
    page = report.render(run, summary)
    assert "10.0.0.2:80" in page
    assert "By server" in page


def test_a_run_of_one_kind_has_neither(tmp_path: Path) -> None:
    found = summarise.summarise(read.load(maker.write(tmp_path, maker.closed_loop(), maker.boundaries(10, 2, 60, 60))))
    assert (found["groups"].keys(), found["questions"]) == ({"worker"}, None)
