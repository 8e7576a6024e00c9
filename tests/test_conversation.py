"""Conversations over turns: what goes along with the next one, and what the rows say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from locust_process import ROOT, headless
from simulator_process import Running

from tokenswarm.protocols.base import Message
from tokenswarm.workload.conversation import History


def contents(messages: list[Message]) -> list[str]:
    return [f"{message['role'][0]}:{message['content']}" for message in messages]


def talked(history: History, turns: int) -> History:
    for number in range(1, turns + 1):
        history.answered(f"q{number}", f"a{number}")
    return history


def test_everything_said_goes_along() -> None:
    assert contents(talked(History("be kind"), 2).messages("q3")) == [
        "s:be kind", "u:q1", "a:a1", "u:q2", "a:a2", "u:q3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("turns", "kept"), [(0, []), (1, ["u:q3", "a:a3"]), (9, ["u:q1", "a:a1", "u:q2", "a:a2", "u:q3", "a:a3"])]
)
def test_only_so_many_turns_go_along_and_the_system_message_always(turns: int, kept: list[str]) -> None:
    history = talked(History("be kind", turns=turns), 3)
    assert contents(history.messages("q4")) == ["s:be kind", *kept, "u:q4"]


def test_only_whole_turns_within_the_tokens_go_along() -> None:
    history = History(tokens=25)
    for letter in "abc":
        history.answered(letter * 20, letter.upper() * 20)  # 5 + 5 tokens
    said = ["u:" + "b" * 20, "a:" + "B" * 20, "u:" + "c" * 20, "a:" + "C" * 20]
    assert contents(history.messages("q")) == [*said, "u:q"]


def test_a_limit_below_nothing_is_an_error() -> None:
    for limit in ({"turns": -1}, {"tokens": -1}):
        with pytest.raises(ValueError, match="less than nothing"):
            History(**limit)  # type: ignore[arg-type]


def test_turns_are_rows_with_their_conversation(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = ROOT / "locustfiles" / "conversation.py"
    options = ("-u", "2", "-t", "4s", "--save-responses")
    run = headless(tmp_path, quick_simulator.url, *options, locustfile=locustfile)
    rows = [row for row in run.rows() if row["status"] == "ok"]
    sent = {line["id"]: line for line in map(json.loads, (run.run_dir / "responses.jsonl").read_text().splitlines())}
    by_conversation: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_conversation.setdefault(row["conversation"], []).append(row)
    whole = [turns for turns in by_conversation.values() if len(turns) == 5]
    assert whole
    for turns in whole:
        assert [(row["turn"], row["name"]) for row in turns] == [(str(n), f"turn {n}") for n in range(1, 6)]
        for before, after in itertools.pairwise(turns):
            assert sent[before["id"]]["text"] in [message["content"] for message in sent[after["id"]]["messages"]]
        assert len(sent[turns[4]["id"]]["messages"]) == 1 + 3 * 2 + 1, "the system message, three turns, the question"


FLAKY = """
from locust import task
from tokenswarm.users import ChatUser

class Stubborn(ChatUser):
    @task
    def ask(self):
        for status in (503, 429, 400):
            fault = {"fault": "status", "status": status}
            self.chat("hi", name=str(status), extra_body={"simulator": fault})
        self.environment.runner.quit()
"""


def test_retries_hide_no_failure(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "flaky.py"
    locustfile.write_text(FLAKY)
    run = headless(tmp_path, quick_simulator.url, "-u", "1", "--retries", "2", locustfile=locustfile, exit_code=1)
    for status, attempts in (("503", 3), ("429", 3), ("400", 1)):
        rows = [row for row in run.rows() if row["name"] == status]
        assert [(row["status"], row["http_status"]) for row in rows] == [("failed", status)] * attempts
        assert [row["parent"] for row in rows] == ["", *[rows[0]["id"]] * (attempts - 1)]
        waits = [float(b["start_time"]) - float(a["end_time"]) for a, b in itertools.pairwise(rows)]
        assert all(wait >= 0.5 * 2**number for number, wait in enumerate(waits))
        assert len({row["intended_time"] for row in rows}) == 1, "the wait is part of ttft_due_ms"
