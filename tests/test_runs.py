"""Whole runs: the real Locust against the simulator, and everything that they leave in the run directory."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections import Counter
from pathlib import Path

import pytest
from locust_process import ROOT, LocustProcess, headless, locust, read_rows
from scripted_server import DONE, END, HEAD, Peer, chunk, event, scripted
from simulator_process import Running, simulator

from tokenswarm.record import COLUMNS, ERROR_CLASSES, STATUSES

PATH = "/v1/chat/completions"
LONG_RAMP = "raise --spawn-rate"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, quick_simulator: Running) -> LocustProcess:
    """An ordinary run, for all tests that only look at what it said and left."""
    folder = tmp_path_factory.mktemp("ordinary")
    return headless(folder, quick_simulator.url, "-u", "10", "-r", "10", "-t", "6s", "--save-responses", "--seed", "7")


def test_a_headless_run_and_all_it_leaves(run: LocustProcess) -> None:
    rows = run.rows()
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) > 50
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["clock"] for row in rows} == {"kernel"}
    assert {row["token_source"] for row in rows} == {"usage"}
    assert len({row["id"] for row in rows}) == len(rows)

    # Locust's own tables: complete to the last request, ours beside them, the Aggregated row untouched.
    stats = run.locust_stats()
    for kind in ("POST", "TTFT", "TPOT", "TOKENS"):
        assert (kind, PATH) in stats
    assert int(stats["POST", PATH]["Request Count"]) == int(stats["", "Aggregated"]["Request Count"]) == len(rows)
    tokens = sum(int(row["output_tokens"]) for row in rows)
    for column in ("Average Content Size", "Average Response Time"):
        assert float(stats["TOKENS", PATH][column]) == pytest.approx(tokens / len(rows))
    mean_ttft = sum(float(row["ttft_ms"]) for row in rows) / len(rows)
    assert float(stats["TTFT", PATH]["Average Response Time"]) == pytest.approx(mean_ttft, rel=1e-3)
    assert float(stats["", "Aggregated"]["Average Response Time"]) > mean_ttft

    # Intervals add up to the rows.
    intervals = run.intervals()
    assert sum(line["started"] for line in intervals) == len(rows)
    assert sum(line["ended"].get("ok", 0) for line in intervals) == len(rows)
    assert sum(line["chunks"] for line in intervals) == sum(int(row["chunks"]) for row in rows)
    assert sum(line["characters"] for line in intervals) == sum(int(row["output_chars"]) for row in rows)
    assert sum(n for line in intervals for _, n in line["tokens"]) == pytest.approx(tokens, rel=1e-3)
    assert sum(n for line in intervals for _, n in line["input_tokens"]) == sum(
        int(row["input_tokens"]) for row in rows
    )

    manifest = run.json("run.json")
    assert manifest["rows"] == {"written": len(rows), "lost": 0}
    assert manifest["target"]["simulator"] is False
    assert manifest["end"]["time"] > manifest["start"]["time"]
    assert [b["event"] for b in manifest["boundaries"]] == ["start", "target", "spawned", "stopping", "stopped"]
    assert manifest["verdict"]["level"] in ("valid", "degraded", "invalid")
    assert manifest["problems"] == []

    responses = [json.loads(line) for line in (run.run_dir / "responses.jsonl").read_text().splitlines()]
    assert {response["id"] for response in responses} == {row["id"] for row in rows}
    by_id = {row["id"]: row for row in rows}
    for response in responses:
        assert len(response["text"]) == int(by_id[response["id"]]["output_chars"])
        assert response["messages"][-1]["role"] == "user"

    assert (run.run_dir / "report.html").stat().st_size > 100_000
    assert "Verdict" in run.output
    assert LONG_RAMP not in run.output
    assert str(run.run_dir / "report.html") in run.output


def test_a_ramp_that_takes_the_run_is_told_before_it_begins(tmp_path: Path, quick_simulator: Running) -> None:
    run = headless(tmp_path, quick_simulator.url, "-u", "4", "-t", "2s")
    assert f"4 users at 1 a second take 4 s to be there, and the run ends after 2 s: {LONG_RAMP}" in run.output


def test_every_request_has_a_uuid_for_servers_that_refuse_any_other_id(tmp_path: Path) -> None:
    with simulator(tmp_path) as server:
        rows = headless(tmp_path, server.url, "-u", "2", "-r", "2", "-t", "1s", "--output-tokens", "2").rows()
        sent = {json.loads(line)["id"] for line in server.log_path.read_text().splitlines()}
    assert len(sent) == len(rows) + 1, "the check before the load has one, too"
    assert {str(uuid.UUID(request_id)) for request_id in sent} == sent >= {row["id"] for row in rows}


def test_a_reply_without_the_finish_reason_that_others_have_was_cut_short(tmp_path: Path) -> None:
    ends = itertools.cycle([event("", "length"), b""])

    def replies(peer: Peer) -> None:
        while request := peer.request():
            peer.send(HEAD + event("hello") + (next(ends) if request.startswith(b"POST") else b"") + DONE + END)

    with scripted(replies) as server:
        rows = headless(tmp_path, server.url, "--model", "m", "--no-check", "-t", "1s", exit_code=1).rows()
    whole, cut = rows[::2], rows[1::2]
    assert {row["status"] for row in whole} == {"ok"}
    assert {(row["status"], row["error_class"], row["http_status"]) for row in cut} == {("failed", "truncated", "200")}
    assert all("without a finish reason" in row["error"] and row["ttft_ms"] for row in cut)


def test_a_server_that_gives_no_finish_reasons_cuts_nothing_short(tmp_path: Path) -> None:
    def replies(peer: Peer) -> None:
        while peer.request():
            peer.send(HEAD + event("hello") + DONE + END)

    with scripted(replies) as server:
        rows = headless(tmp_path, server.url, "--model", "m", "--no-check", "-t", "1s").rows()
    assert {row["status"] for row in rows} == {"ok"}


def test_times_and_durations_of_a_row_agree(run: LocustProcess) -> None:
    for row in run.rows():
        number = {name: float(value) for name, value in row.items() if re.fullmatch(r"-?\d+(\.\d+)?", value)}
        parts = sum(number.get(name, 0.0) for name in ("pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms"))
        assert number["ttft_ms"] - number["ttft_sent_ms"] == pytest.approx(parts, abs=0.01)
        assert number["ttft_due_ms"] - number["ttft_ms"] == pytest.approx(number["queue_ms"], abs=0.01)
        assert (number["end_time"] - number["start_time"]) * 1e3 == pytest.approx(number["e2e_ms"], abs=0.01)
        assert (number["first_token_time"] - number["start_time"]) * 1e3 == pytest.approx(number["ttft_ms"], abs=0.01)
        span = number["last_token_ms"] - number["ttft_ms"]
        assert number["tpot_ms"] * (number["output_tokens"] - 1) == pytest.approx(span, rel=1e-2, abs=0.1)
        assert number["ttft_ms"] <= number["last_token_ms"] <= number["e2e_ms"]


TEN_LINES = """
from locust import events, task
from tokenswarm.users import ChatUser

heard = []

@events.first_token.add_listener
def first(user, name, ttft_ms, **kwargs):
    heard.append(("first", name, ttft_ms))

@events.output_tokens.add_listener
def tokens(user, name, tokens, record, **kwargs):
    heard.append(("tokens", name, tokens, record.ttft_ms))

@events.quit.add_listener
def show(**kwargs):
    for item in heard:
        print("HEARD", *item)

class Poet(ChatUser):
    @task
    def write(self):
        reply = self.chat("A poem, please.", name="poem", max_tokens=5, extra_body={"ignore_eos": True})
        assert reply.ok and reply.usage.output_tokens == 5 and reply.ttft_ms < reply.e2e_ms, reply
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": reply.text}]
        again = self.chat([*messages, {"role": "user", "content": "more"}], name="again", stream=False, max_tokens=3)
        assert again.ok and again.text and again.ttft_ms is None
        self.environment.runner.quit()
"""


def test_a_locustfile_of_ones_own(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "mine.py"
    locustfile.write_text(TEN_LINES)
    run = headless(tmp_path, quick_simulator.url, "-u", "1", locustfile=locustfile)
    rows = {row["name"]: row for row in run.rows()}
    assert set(rows) == {"poem", "again"}, "the built-in task must not run beside one's own"
    assert rows["poem"]["user_class"] == "Poet"
    assert rows["poem"]["asked_output_tokens"] == rows["poem"]["output_tokens"] == "5"
    assert rows["again"]["ttft_ms"] == rows["again"]["tpot_ms"] == ""
    assert rows["again"]["output_tokens"] == "3"
    heard = [line.split()[1:] for line in run.output.splitlines() if line.startswith("HEARD")]
    assert [item[:2] for item in heard] == [["first", "poem"], ["tokens", "poem"], ["tokens", "again"]]
    assert float(heard[0][2]) == pytest.approx(float(rows["poem"]["ttft_ms"]), abs=0.01)


FAULTS = {
    "status": ("failed", "http_5xx"),
    "truncate": ("failed", "truncated"),
    "reset": ("failed", "truncated"),
    "no-done": ("failed", "truncated"),  # after 3 chunks: neither [DONE] nor a finish reason
    "stream-error": ("failed", "stream_error"),
    "malformed": ("failed", "malformed"),
    "empty": ("failed", "empty"),
    "stall": ("timeout", "stall_timeout"),
    "silent": ("timeout", "first_token_timeout"),
    "close-delimited": ("ok", ""),
}

FAULTY = """
from locust import task
from tokenswarm.users import ChatUser

class Faulty(ChatUser):
    @task
    def all(self):
        for kind in {kinds}:
            fault = {{"fault": kind, "after": 3, "status": 503}}
            self.chat("hi", name=kind, max_tokens=8, extra_body={{"simulator": fault, "ignore_eos": True}})
        self.environment.runner.quit()
"""


def test_every_fault_is_one_row_with_its_class(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "faulty.py"
    locustfile.write_text(FAULTY.format(kinds=list(FAULTS)))
    options = ("-u", "1", "--first-token-timeout", "0.5", "--stall-timeout", "0.3")
    run = headless(tmp_path, quick_simulator.url, *options, locustfile=locustfile, exit_code=1)
    rows = run.rows()
    got = {row["name"]: (row["status"], row["error_class"]) for row in rows}
    assert got == FAULTS
    assert len(rows) == len(FAULTS)
    assert all(row["error"] for row in rows if row["error_class"])
    assert {row["error_class"] for row in rows} - {""} <= set(ERROR_CLASSES)
    failed = [kind for kind, (status, _) in FAULTS.items() if status != "ok"]
    stats = run.locust_stats()
    assert int(stats["", "Aggregated"]["Failure Count"]) == len(failed)
    assert int(stats["", "Aggregated"]["Request Count"]) == len(FAULTS)
    partial = next(row for row in rows if row["name"] == "truncate")
    assert (partial["output_tokens"], partial["token_source"]) == ("3", "chunks"), "what came before the fault is kept"


def test_what_is_in_flight_at_the_stop_is_a_row_too(tmp_path: Path) -> None:
    with simulator(tmp_path, "--decode-base", "50", "--output-tokens", "5000") as slow:
        run = headless(tmp_path, slow.url, "-u", "8", "-r", "8", "-t", "2s", "--stop-timeout", "0")
    rows = run.rows()
    assert [row["status"] for row in rows] == ["incomplete"] * 8
    assert all(float(row["ttft_ms"]) > 0 and int(row["output_tokens"]) > 5 for row in rows), "with what they saw"
    stats = run.locust_stats()
    assert stats["INCOMPLETE", PATH]["Request Count"] == "8"
    assert stats["", "Aggregated"]["Request Count"] == stats["", "Aggregated"]["Failure Count"] == "0"


def test_a_stop_drains_by_default(tmp_path: Path, quick_simulator: Running) -> None:
    body = json.dumps({"ignore_eos": True})
    options = ("-u", "4", "-t", "1s", "--output-tokens", "800", "--extra-body", body)
    run = headless(tmp_path, quick_simulator.url, *options)
    assert {(row["status"], row["output_tokens"]) for row in run.rows()} == {("ok", "800")}


def test_a_user_that_gives_up_makes_a_cancelled_row(tmp_path: Path) -> None:
    locustfile = tmp_path / "impatient.py"
    locustfile.write_text(
        "import gevent\n"
        "from locust import task\n"
        "from tokenswarm.users import ChatUser\n"
        "class Impatient(ChatUser):\n"
        "    @task\n"
        "    def leave(self):\n"
        "        with gevent.Timeout(0.3, False):\n"
        "            self.chat('hi')\n"
        "        self.environment.runner.quit()\n"
    )
    with simulator(tmp_path, "--decode-base", "50", "--output-tokens", "5000") as slow:
        run = headless(tmp_path, slow.url, "-u", "1", locustfile=locustfile)
    (row,) = run.rows()
    assert (row["status"], row["error_class"]) == ("cancelled", "")
    assert int(row["chunks"]) > 1
    assert ("CANCELLED", PATH) in run.locust_stats()


def test_the_embedded_simulator_is_said_loudly_and_ends_with_the_run(tmp_path: Path) -> None:
    with locust(tmp_path, "--headless", "-u", "2", "-t", "2s", "--lang", "zh") as run:
        assert run.wait() == 0, run.output
    manifest = run.json("run.json")
    assert manifest["target"]["simulator"] is True
    assert manifest["target"]["host"].endswith("/simulator")
    assert "模拟器：以下数字来自" in run.output, "in the language that was asked for"
    assert "<strong>模拟器</strong>" in (run.run_dir / "report.html").read_text()
    assert {row["status"] for row in run.rows()} == {"ok"}
    port = manifest["target"]["host"].rsplit(":", 1)[1].split("/")[0]
    assert not listens(int(port))


def listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_same_seed_asks_the_same(tmp_path: Path, quick_simulator: Running) -> None:
    def first_prompts(folder: str, seed: str) -> list[str]:
        (tmp_path / folder).mkdir()
        options = ("-u", "1", "--requests", "10", "--save-responses", "--seed", seed)
        run = headless(tmp_path / folder, quick_simulator.url, *options)
        lines = (run.run_dir / "responses.jsonl").read_text().splitlines()
        return [json.loads(line)["messages"][0]["content"] for line in lines]

    assert first_prompts("a", "1") == first_prompts("b", "1") != first_prompts("c", "2")


def test_a_key_goes_to_the_server_and_nowhere_else(tmp_path: Path) -> None:
    key, other = "sk-verysecret-0123456789", "tenant-4711-secret"
    env = {"SIMULATOR_API_KEY": key}
    with simulator(tmp_path, "--require-key", env=env) as guarded:
        options = ("-u", "2", "-t", "1s", "--save-responses", "--header", "X-Tenant-Token: $TENANT")
        run = headless(tmp_path, guarded.url, *options, env={"LLM_API_KEY": key, "TENANT": other})
        assert {row["status"] for row in run.rows()} == {"ok"}
        bad = headless(tmp_path, guarded.url, "-u", "1", env={"LLM_API_KEY": "sk-wrong-key-98765"}, exit_code=2)
        assert "LLM_API_KEY" in bad.output
        assert "401" in bad.output
    for file in [*run.run_dir.iterdir(), run.output_path]:
        content = file.read_bytes()
        for secret in (key, other, "sk-wrong-key-98765"):
            assert secret.encode() not in content, file


def test_an_echoed_key_is_cut_out_of_the_error(tmp_path: Path) -> None:
    key = "sk-verysecret-0123456789"

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(HEAD + chunk(b'data: {"error":"no such key: %s"}\n\n' % key.encode()) + b"0\r\n\r\n")

    with scripted(script) as server:
        options = ("-u", "1", "-t", "1s", "--model", "m", "--no-check")
        run = headless(tmp_path, server.url, *options, env={"LLM_API_KEY": key}, exit_code=1)
    assert run.rows()[0]["error"] == "no such key: ***"
    assert all(key.encode() not in file.read_bytes() for file in [*run.run_dir.iterdir(), run.output_path])


def test_a_second_run_never_touches_the_first(tmp_path: Path, quick_simulator: Running) -> None:
    first = headless(tmp_path, quick_simulator.url, "-u", "1", "--requests", "1")
    before = (first.run_dir / "requests.csv").read_bytes()
    headless(tmp_path, quick_simulator.url, "-u", "1", "--requests", "1")
    assert (first.run_dir / "requests.csv").read_bytes() == before
    assert read_rows(tmp_path / "run-2")


def test_default_run_directories_are_named_by_time_and_scenario(tmp_path: Path, quick_simulator: Running) -> None:
    run = headless(tmp_path, quick_simulator.url, "-u", "1", "-t", "1s", "--run-dir", "")
    (made,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-chat", made.name)
    assert str(made) in run.output


@pytest.mark.parametrize(("goal", "code"), [("errors", 3), ("invalid", 1)])
def test_fail_on_sets_the_exit_code(tmp_path: Path, quick_simulator: Running, goal: str, code: int) -> None:
    body = json.dumps({"simulator": {"fault": "status", "status": 503}})
    options = ("-u", "1", "--requests", "3", "--no-check", "--extra-body", body, "--fail-on", goal)
    # Nothing succeeded, so nothing was measured: that is an invalid run as well.
    run = headless(tmp_path, quick_simulator.url, *options, exit_code=3 if goal == "invalid" else code)
    counted = Counter(row["status"] for row in run.rows())
    assert set(counted) == {"failed"}
    assert set(counted) <= set(STATUSES)


def test_the_live_line(run: LocustProcess) -> None:
    line = next(line for line in run.output.splitlines() if "in flight" in line and "tokens/s" in line)
    for part in ("users 10", "replies", "errors 0", "TTFT", "latency", "chars/s", "a user"):
        assert part in line


def test_shapes_end_the_run_too(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "shape.py"
    locustfile.write_text(
        (ROOT / "locustfiles" / "chat.py").read_text()
        + "from locust import LoadTestShape\n"
        + "class Steps(LoadTestShape):\n"
        + "    def tick(self):\n"
        + "        return None if self.get_run_time() > 2 else (2 if self.get_run_time() < 1 else 4, 10)\n"
    )
    run = headless(tmp_path, quick_simulator.url, locustfile=locustfile)
    manifest = run.json("run.json")
    assert [b["users"] for b in manifest["boundaries"] if b["event"] == "spawned"] == [2, 4]
    assert manifest["end"] is not None
    assert run.rows()


def test_a_prompt_that_cannot_be_sent_is_a_row(tmp_path: Path, quick_simulator: Running) -> None:
    locustfile = tmp_path / "broken.py"
    locustfile.write_text(
        "from locust import task\n"
        "from tokenswarm.users import ChatUser\n"
        "class Broken(ChatUser):\n"
        "    @task\n"
        "    def broken(self):\n"
        "        self.chat('half a \\ud800 character')\n"
        "        self.chat([{'role': 'user', 'content': object()}], name='object')\n"
        "        self.environment.runner.quit()\n"
    )
    options = ("-u", "1", "--save-responses")
    run = headless(tmp_path, quick_simulator.url, *options, locustfile=locustfile, exit_code=1)
    assert [(row["status"], row["error_class"]) for row in run.rows()] == [("failed", "client")] * 2
    assert len((run.run_dir / "responses.jsonl").read_text().splitlines()) == 2
