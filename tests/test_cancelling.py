"""Runs whose users leave before the reply has ended: their rows, Locust's tables, the server's own log, the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from locust_process import LocustProcess, headless
from simulator_process import Running, simulator

from tokenswarm.target import CHECK_ID

pytestmark = pytest.mark.slow

PATH = "/v1/chat/completions"
PACE = ("--decode-base", "5")
LENGTH = ("--output-tokens", "60", "--extra-body", '{"ignore_eos": true}')


def sent(server: Running) -> dict[str, Any]:
    """What the server says of each request, once it has noticed that all are over."""
    lines = [json.loads(line) for line in server.log_path.read_text().splitlines()]
    return {line["id"]: line for line in lines if line["id"] != CHECK_ID}


def all_noticed(server: Running, run: LocustProcess) -> dict[str, Any]:
    return run.until(lambda: found if len(found := sent(server)) == len(run.rows()) else None)  # type: ignore[no-any-return]


def test_a_share_of_users_leaves_with_the_tenth_token_and_the_server_stops(tmp_path: Path) -> None:
    with simulator(tmp_path, *PACE) as server:
        options = ("--requests", "60", "--cancel-rate", "0.5", "--cancel-after", "10t", "--seed", "3")
        run = headless(tmp_path, server.url, "-u", "6", "-r", "6", *options, *LENGTH)
        log = all_noticed(server, run)
    rows, summary = run.rows(), run.json("summary.json")
    left = [row for row in rows if row["status"] == "cancelled"]
    stayed = [row for row in rows if row["status"] == "ok"]
    assert len(left) + len(stayed) == len(rows) == 60
    assert 15 < len(left) < 45
    for row in left:
        assert (row["chunks"], row["output_tokens"], row["token_source"]) == ("10", "10", "chunks")
        assert (row["error_class"], row["error"], row["finish_reason"]) == ("", "the user left with chunk 10", "")
        assert row["ttft_ms"] and row["tpot_ms"] and row["last_token_ms"] == row["e2e_ms"]
        assert log[row["id"]]["outcome"] == "cancelled"
        assert 10 <= len(log[row["id"]]["sent_ns"]) < 60, "it did not go on to the end"
    assert {log[row["id"]]["outcome"] for row in stayed} == {"ok"}
    assert run.locust_stats()["CANCELLED", PATH]["Request Count"] == str(len(left))
    assert run.locust_stats()["POST", PATH]["Failure Count"] == "0"
    assert summary["requests"]["all"]["cancelled"] == len(left)
    assert summary["errors"] == []
    reasons = {reason["rule"] for reason in summary["verdict"]["reasons"]}
    assert not reasons & {"mostly_failed", "tiny_outputs", "short_outputs", "tokens_estimated", "no_ok_rows"}


def test_everybody_leaves_a_websocket_at_the_instant(tmp_path: Path) -> None:
    with simulator(tmp_path, *PACE, "--output-tokens", "2000") as server:
        leaving = ("--requests", "9", "--cancel-rate", "1", "--cancel-after", "0.15s", "--protocol", "websocket-chat")
        run = headless(tmp_path, server.url, "-u", "3", "-r", "3", *leaving)
        log = all_noticed(server, run)
    for row in run.rows():
        assert (row["status"], row["e2e_ms"], row["error_class"]) == ("cancelled", "150.000", "")
        assert float(row["last_token_ms"] or 0) <= 150
        assert log[row["id"]]["outcome"] == "cancelled"


def test_the_impatient_leave_without_a_first_token_and_that_ends_their_conversation(tmp_path: Path) -> None:
    dataset = tmp_path / "talks.jsonl"
    turns = [{"from": "human" if i % 2 == 0 else "gpt", "value": f"turn {i}"} for i in range(6)]
    dataset.write_text(json.dumps({"conversations": turns}) + "\n")
    with simulator(tmp_path, "--prefill-base", "400", quick=False) as server:
        options = ("--requests", "6", "--patience", "0.1s", "--dataset", str(dataset))
        run = headless(tmp_path, server.url, "-u", "2", "-r", "2", *options)
        all_noticed(server, run)
    rows = run.rows()
    assert {(row["status"], row["ttft_ms"], row["e2e_ms"], row["turn"]) for row in rows} == {
        ("cancelled", "", "100.000", "1")
    }
    assert {row["error"] for row in rows} == {"the user left: no output within 0.1 s"}
    assert len({row["conversation"] for row in rows}) == 6, "each began a conversation of its own"


def test_a_locustfile_says_when_its_users_leave(tmp_path: Path) -> None:
    locustfile = tmp_path / "mixed.py"
    locustfile.write_text(
        "from locust import task\n"
        "from tokenswarm.users import ChatUser\n"
        "class Mixed(ChatUser):\n"
        "    @task\n"
        "    def talk(self):\n"
        "        self.chat('hi', name='tokens', cancel_after='5t')\n"
        "        self.chat('hi', name='seconds', cancel_after=0.1)\n"
        "        self.chat('hi', name='whole')\n"
        "        self.environment.runner.quit()\n"
    )
    with simulator(tmp_path, *PACE) as server:
        run = headless(tmp_path, server.url, "-u", "1", *LENGTH, locustfile=locustfile)
    seen = {row["name"]: (row["status"], row["chunks"], row["e2e_ms"]) for row in run.rows()}
    assert seen["tokens"][:2] == ("cancelled", "5")
    assert (seen["seconds"][0], seen["seconds"][2]) == ("cancelled", "100.000")
    assert seen["whole"][:2] == ("ok", "60")
