"""The latency model and the texts of the simulator, without a clock or a socket."""

from __future__ import annotations

import itertools
import json
import statistics

import pytest

from tokenswarm.simulator.engine import NS_PER_MS, Engine, Latency, QueueFull, Sequence
from tokenswarm.simulator.text import Tape, estimate_tokens

STEADY = Latency(prefill_base_ms=100, prefill_per_token_ms=1, decode_base_ms=20, decode_per_seq_ms=1, jitter=0)


class Bench:
    """An engine and a clock that jumps from one step to the next; `sent` holds (ms, tokens) for each name."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = 0
        self.sent: dict[str, list[tuple[float, int]]] = {}
        self.sequences: dict[str, Sequence] = {}

    def submit(self, name: str, input_tokens: int, length: int) -> None:
        times = self.sent.setdefault(name, [])
        sequence = Sequence(input_tokens, length, lambda n, last: times.append((self.now / NS_PER_MS, n)))
        self.sequences[name] = sequence
        self.engine.submit(sequence, self.now)

    def step(self) -> bool:
        due = self.engine.begin_step(self.now)
        if due is None:
            return False
        self.now = due
        self.engine.finish_step(due)
        return True

    def run(self) -> None:
        while self.step():
            pass

    def times(self, name: str) -> list[float]:
        return [at for at, _ in self.sent[name]]


def test_lone_request_gets_its_first_token_after_prefill_and_one_a_step() -> None:
    bench = Bench(Engine(STEADY))
    bench.submit("a", 50, 4)
    bench.run()
    assert bench.times("a") == [150, 171, 192, 213]
    assert bench.engine.running == bench.engine.kv_used == 0
    assert (bench.engine.prompt_tokens, bench.engine.generated_tokens) == (50, 4)


def test_decode_step_grows_with_the_batch() -> None:
    bench = Bench(Engine(STEADY))
    for name in "abcde":
        bench.submit(name, 0, 3)
    bench.run()
    assert all(bench.times(name) == [100, 125, 150] for name in "abcde")


def test_prompts_are_computed_one_after_another() -> None:
    bench = Bench(Engine(Latency(100, 1, 0, 0, 0)))
    bench.submit("first", 400, 1)
    bench.submit("second", 100, 1)
    bench.run()
    assert bench.times("first") == [500]
    assert bench.times("second") == [600]


def test_beyond_the_batch_requests_wait_their_turn() -> None:
    bench = Bench(Engine(STEADY, max_batch=2))
    for name in "abcd":
        bench.submit(name, 0, 5 if name == "a" else 3)
    assert (bench.engine.running, len(bench.engine.waiting)) == (2, 2)
    bench.run()
    end_of_b = bench.times("b")[-1]
    assert end_of_b < bench.times("a")[-1]
    assert bench.times("c")[0] >= end_of_b + 100
    assert bench.times("d")[0] >= bench.times("a")[-1] + 100
    assert bench.times("c")[0] < bench.times("d")[0]


def test_full_queue_refuses_and_a_cancelled_one_makes_room() -> None:
    bench = Bench(Engine(STEADY, max_batch=1, max_queue=1))
    bench.submit("running", 0, 3)
    bench.submit("waiting", 0, 3)
    with pytest.raises(QueueFull):
        bench.submit("refused", 0, 3)
    bench.engine.cancel(bench.sequences["waiting"])
    bench.submit("late", 0, 3)
    bench.run()
    assert bench.sent["waiting"] == []
    assert len(bench.sent["late"]) == 3


def test_cancelled_request_frees_its_place_and_its_cache() -> None:
    bench = Bench(Engine(STEADY, max_batch=1))
    bench.submit("a", 10, 1000)
    bench.submit("b", 10, 2)
    for _ in range(5):
        bench.step()
    bench.engine.cancel(bench.sequences["a"])
    bench.run()
    assert len(bench.sent["a"]) == 5
    assert len(bench.sent["b"]) == 2
    assert bench.engine.kv_used == 0


def test_request_waits_for_room_in_the_kv_cache() -> None:
    bench = Bench(Engine(STEADY, kv_cache_tokens=100))
    bench.submit("a", 50, 10)
    bench.submit("b", 50, 10)
    assert bench.engine.kv_used == 60
    assert len(bench.engine.waiting) == 1
    bench.run()
    assert bench.times("b")[0] > bench.times("a")[-1]
    with pytest.raises(ValueError, match="never fit"):
        bench.submit("c", 90, 11)


def test_several_tokens_a_step_end_exactly_at_the_length() -> None:
    bench = Bench(Engine(STEADY, tokens_per_step=4))
    bench.submit("a", 0, 10)
    bench.run()
    assert [tokens for _, tokens in bench.sent["a"]] == [4, 4, 2]


def test_jitter_varies_as_told_keeps_the_mean_and_repeats_with_the_seed() -> None:
    def gaps(seed: int) -> list[float]:
        bench = Bench(Engine(Latency(0, 0, 20, 0, 0.3), seed=seed))
        bench.submit("a", 0, 4000)
        bench.run()
        times = bench.times("a")
        return [after - before for before, after in itertools.pairwise(times)]

    drawn = gaps(1)
    assert drawn == gaps(1)
    assert drawn != gaps(2)
    mean = statistics.fmean(drawn)
    assert mean == pytest.approx(20, rel=0.03)
    assert statistics.stdev(drawn) / mean == pytest.approx(0.3, rel=0.1)


def test_token_estimate_follows_its_rule() -> None:
    assert estimate_tokens(["abcd"]) == 1
    assert estimate_tokens(["abcde"]) == 2
    assert estimate_tokens(["你好吗?"]) == 4
    assert estimate_tokens(["ab 你好", "c"]) == 3
    assert estimate_tokens([]) == 1


def test_tape_repeats_with_the_seed_and_its_pieces_are_its_text() -> None:
    tape = Tape(3)
    assert tape.tokens == Tape(3).tokens
    assert tape.tokens != Tape(4).tokens
    near_end = tape.size - 5
    encoded, chars = tape.piece(near_end, 500)
    assert json.loads(b'"' + encoded + b'"') == tape.text(near_end, 500)
    assert chars == len(tape.text(near_end, 500))
    widths = {len(token.encode()) // len(token) for token in tape.tokens}
    assert {1, 3, 4} <= widths, "English, Chinese and emoji"
