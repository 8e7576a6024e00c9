"""Whole runs against a real llama.cpp server: what it counts and times itself is the oracle."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from caller import Caller, outcome
from llama_server import EMBEDDING, MISSING, MODEL, SLOT_CONTEXT, SLOTS, LlamaServer, llama_server
from locust_process import LocustProcess, headless
from slots import check_waits

from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.base import Vectors
from tokenswarm.results import read
from tokenswarm.results.figures import server as server_page
from tokenswarm.results.figures.evidence import CHECKED_TOKENS
from tokenswarm.target import PROBE_PROMPT

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{' and '.join(MISSING)} not installed: pip install 'tokenswarm[servers]'"
    ),
]

USERS = 2 * SLOTS
ASKED = 40
COUNTERS = ("tokens_predicted_total", "prompt_tokens_total", "prompt_tokens_cached_total")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with llama_server(tmp_path_factory.mktemp("llama")) as running:
        yield running


@dataclass(frozen=True)
class Crowd:
    """A run of twice as many users as the server has slots, and by how much its counters grew meanwhile."""

    run: LocustProcess
    growth: dict[str, float]


@pytest.fixture(scope="module")
def crowd(server: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    before = {name: server.counter(name) for name in COUNTERS}
    options = (
        "-u",
        str(USERS),
        "-r",
        str(USERS),
        "-t",
        "4s",
        "--output-tokens",
        str(ASKED),
        "--server-metrics",
        "target",
    )
    # A few of the bundled prompts may not fit the context: then Locust's exit code is 1.
    run = headless(tmp_path_factory.mktemp("crowd"), server.url, *options, exit_code=None)
    return Crowd(run, {name: server.counter(name) - before[name] for name in COUNTERS})


def test_every_reply_is_whole_or_says_why_not(crowd: Crowd) -> None:
    rows = crowd.run.rows()
    ok = [row for row in rows if row["status"] == "ok"]
    assert len(ok) >= USERS
    for row in ok:
        assert (row["clock"], row["token_source"], row["model"]) == ("kernel", "usage", MODEL)
        assert 0 < int(row["output_tokens"]) <= ASKED == int(row["asked_output_tokens"])
        assert int(row["chunks"]) <= int(row["output_tokens"])
        assert row["finish_reason"] in (("length", "stop") if int(row["output_tokens"]) == ASKED else ("stop",))
    for row in rows:
        if row["status"] != "ok":
            assert (row["status"], row["error_class"], row["http_status"]) == ("failed", "http_4xx", "400")
            assert "exceeds the available context size" in row["error"]


def test_tokens_are_those_that_the_server_counted(server: LlamaServer, crowd: Crowd) -> None:
    ok = [row for row in crowd.run.rows() if row["status"] == "ok"]
    check = server.chat(PROBE_PROMPT, max_tokens=1)["usage"]
    output = sum(int(row["output_tokens"]) for row in ok)
    prompts = sum(int(row["input_tokens"]) for row in ok)
    assert crowd.growth["tokens_predicted_total"] == output + check["completion_tokens"]
    computed, cached = (crowd.growth[f"prompt_tokens_{kind}total"] for kind in ("", "cached_"))
    assert computed + cached == prompts + check["prompt_tokens"], "one row for each request that the server ran"
    assert sum(int(row["cached_tokens"]) for row in ok) <= cached


def test_its_own_page_is_understood_and_bears_its_usage_out(crowd: Crowd) -> None:
    run = read.load(crowd.run.run_dir)
    (page,) = server_page.pages(run.server)
    assert page.names.server == "llama.cpp"
    running, waiting, made = page.gauge("running"), page.gauge("waiting"), server_page.generated(run)
    assert running is not None and waiting is not None and made is not None
    assert 0 <= running.max() <= SLOTS
    assert waiting.max() <= USERS
    assert made.made == pytest.approx(made.least, abs=made.unsure + CHECKED_TOKENS)
    verdict = crowd.run.json("summary.json")["verdict"]
    assert "usage_against_counter" not in {reason["rule"] for reason in verdict["reasons"]}


def test_waiting_for_a_slot_shows_in_ttft(crowd: Crowd) -> None:
    check_waits([row for row in crowd.run.rows() if row["status"] == "ok"], SLOTS)


REFUSED = """
from locust import task
from tokenswarm.users import ChatUser

class Refused(ChatUser):
    @task
    def all(self):
        self.chat("x" * {too_long}, name="overflow", max_tokens=5)
        self.chat("hi", name="wrong parameter", extra_body={{"top_k": "many"}}, max_tokens=5)
        self.chat("hi", name="unknown parameter", extra_body={{"no_such_parameter": 1}}, max_tokens=5)
        self.environment.runner.quit()
"""


def test_what_the_server_refuses_is_a_row_with_its_words(server: LlamaServer, tmp_path: Path) -> None:
    locustfile = tmp_path / "refused.py"
    locustfile.write_text(REFUSED.format(too_long=SLOT_CONTEXT + 1))
    run = headless(tmp_path, server.url, "-u", "1", locustfile=locustfile, exit_code=1)
    overflow, wrong, unknown = run.rows()
    for row, words in ((overflow, "exceeds the available context size"), (wrong, "top_k")):
        assert (row["status"], row["error_class"], row["http_status"]) == ("failed", "http_4xx", "400")
        assert words in row["error"]
        assert row["output_tokens"] == row["ttft_ms"] == ""
    assert unknown["status"] == "ok", "llama.cpp ignores what it does not know"


def test_whole_replies(server: LlamaServer, tmp_path: Path) -> None:
    options = ("--no-stream", "-u", "2", "-t", "1s", "--output-tokens", "10")
    rows = [row for row in headless(tmp_path, server.url, *options, exit_code=None).rows() if row["status"] == "ok"]
    assert rows
    for row in rows:
        assert (row["token_source"], row["clock"]) == ("usage", "kernel")
        assert row["ttft_ms"] == row["tpot_ms"] == row["itl_p50_ms"] == ""
        assert 0 < int(row["output_tokens"]) <= 10
        assert int(row["output_chars"]) > 0
        assert float(row["e2e_ms"]) >= float(row["headers_ms"]) > 0


TIMED = """
import json
import statistics
from locust import task
from tokenswarm.protocols.openai_chat import OpenAIChat, OpenAIChatDecoder
from tokenswarm.users import ChatUser

TIMINGS = []

class Listening(OpenAIChatDecoder):
    def decode(self, event):
        if event.data.startswith(b"{"):
            chunk = json.loads(event.data)
            if chunk["choices"] and "timings" in chunk:
                TIMINGS.append(chunk["timings"])
        return super().decode(event)

OpenAIChat.decoder = lambda self: Listening()

class Timed(ChatUser):
    @task
    def ask(self):
        TIMINGS.clear()
        reply = self.chat(self.next_prompt())
        if reply.ok:
            print("TIMED", json.dumps({"id": reply.record.id, "timings": TIMINGS}), flush=True)
"""


def test_our_times_agree_with_those_of_the_server(server: LlamaServer, tmp_path: Path) -> None:
    locustfile = tmp_path / "timed.py"
    locustfile.write_text(TIMED)
    body = json.dumps({"timings_per_token": True, "ignore_eos": True})
    options = ("-u", "1", "-t", "3s", "--output-tokens", "100", "--extra-body", body)
    run = headless(tmp_path, server.url, *options, locustfile=locustfile, exit_code=None)
    by_id = {row["id"]: row for row in run.rows() if row["status"] == "ok"}
    timed = [json.loads(line[5:]) for line in run.output.splitlines() if line.startswith("TIMED")]
    assert len(timed) == len(by_id) >= 3

    before_first, beside_all, spans, gaps = [], [], [], []
    for reply in timed:
        timings, row = reply["timings"], by_id[reply["id"]]
        computing, decoding = timings[0]["prompt_ms"], timings[-1]["predicted_ms"]
        assert float(row["ttft_sent_ms"]) <= float(row["ttft_ms"])
        before_first.append(float(row["ttft_sent_ms"]) - computing)
        beside_all.append(float(row["e2e_ms"]) - computing - decoding)
        spans.append((float(row["last_token_ms"]) - float(row["ttft_ms"])) / decoding)
        told = [late["predicted_ms"] - early["predicted_ms"] for early, late in itertools.pairwise(timings)]
        if row["itl_mean_ms"]:  # else the server sent everything at once, as it does on a machine that starves it
            gaps.append(float(row["itl_mean_ms"]) / statistics.mean(told))
    # Medians, because a machine that does other things as well delays the one or the other now and then.
    assert statistics.median(before_first) > 0
    assert statistics.median(beside_all) > 0
    assert statistics.median(spans) == pytest.approx(1.0, abs=0.2)
    assert statistics.median(gaps) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("openai-completions", "max_tokens"), ("anthropic", "max_tokens"), ("openai-responses", "max_output_tokens")],
)
@pytest.mark.parametrize("stream", [True, False])
def test_other_protocols_count_what_the_server_counts(server: LlamaServer, name: str, limit: str, stream: bool) -> None:
    before = {counter: server.counter(counter) for counter in COUNTERS}
    caller = Caller(server.url, protocol=PROTOCOLS[name], extra_body={limit: 20, "ignore_eos": True})
    call = caller.call(stream)
    caller.close()
    reply = call.exchange
    text, error_class = outcome(call)
    assert (error_class, bool(text)) == (None, True)
    # llama.cpp calls every response completed.
    assert reply.finish_reason == ("stop" if name == "openai-responses" else "length")
    assert reply.usage is not None
    growth = {counter: server.counter(counter) - before[counter] for counter in COUNTERS}
    assert reply.usage.output_tokens == growth["tokens_predicted_total"] == 20
    assert reply.usage.input_tokens == growth["prompt_tokens_total"] + growth["prompt_tokens_cached_total"]
    assert 0 < len(call.timeline.at) <= 20 if stream else not call.timeline.at


def test_embeddings(tmp_path: Path) -> None:
    with llama_server(tmp_path, "embeddings") as server:
        run = headless(
            tmp_path, server.url, "--protocol", "openai-embeddings", "-u", "2", "-r", "2", "-t", "2s", exit_code=None
        )
        caller = Caller(
            server.url,
            protocol=PROTOCOLS["openai-embeddings"],
            extra_body={"encoding_format": "base64", "input": ["a", "b"]},
        )
        reply = caller.call(stream=False).exchange
        caller.close()
    assert (reply.error, reply.vectors) == (None, Vectors(2, EMBEDDING))
    rows = [row for row in run.rows() if row["status"] == "ok"]
    assert rows, run.output
    for row in rows:
        assert (row["inputs"], row["vector_size"], row["ttft_ms"], row["output_tokens"]) == (
            "1",
            str(EMBEDDING),
            "",
            "",
        )
        assert int(row["input_tokens"]) > 0
