"""The simulator's prefix cache: what it has, what goes first, and that only what is not there costs prefill."""

from __future__ import annotations

import json
from pathlib import Path

from simulator_process import chat, events, simulator

from tokenswarm.simulator.engine import Engine, Latency, Sequence
from tokenswarm.simulator.prefix_cache import BLOCK_CHARACTERS, PrefixCache, blocks

TOKENS = BLOCK_CHARACTERS // 4
A, B, C = ("a" * BLOCK_CHARACTERS, "b" * BLOCK_CHARACTERS, "c" * BLOCK_CHARACTERS)


def take(cache: PrefixCache, *texts: str) -> int:
    return cache.take(blocks(["".join(texts)])) // TOKENS


def test_only_the_beginning_is_of_use() -> None:
    cache = PrefixCache(1000)
    assert take(cache, A, B) == 0
    assert take(cache, A, B) == 2
    assert take(cache, A, C) == 1
    assert take(cache, B) == 0, "it was there after another one only"
    assert take(cache, "x", A, B) == 0


def test_what_is_no_whole_block_is_not_kept() -> None:
    cache = PrefixCache(1000)
    assert take(cache, A, "some more") == 0
    assert take(cache, A, "some more") == 1


def test_the_least_recently_used_go_first_and_the_ends_of_prompts_before_their_beginnings() -> None:
    cache = PrefixCache(3 * TOKENS)
    take(cache, A, B)
    take(cache, C)
    assert take(cache, A) == 1
    take(cache, B)
    assert [take(cache, A), take(cache, C)] == [1, 1]
    assert take(cache, A, B) == 1, "its end went when room was short"


def test_a_cached_prompt_costs_no_prefill_but_for_its_last_token() -> None:
    engine = Engine(Latency(0, 1, 0, 0, 0), prefix_cache=PrefixCache(1000))
    prompt = blocks([A + B])
    first, second = (Sequence(2 * TOKENS, 1, lambda tokens, last: None, prompt) for _ in range(2))
    engine.submit(first, 0)
    engine.submit(second, 0)
    assert (first.cached_tokens, first.ready_ns) == (0, 2 * TOKENS * 1_000_000)
    assert (second.cached_tokens, second.ready_ns) == (2 * TOKENS - 1, (2 * TOKENS + 1) * 1_000_000)


def test_usage_tells_what_was_cached(tmp_path: Path) -> None:
    question = [{"role": "system", "content": A + B}, {"role": "user", "content": "How are you?"}]
    with simulator(tmp_path, "--prefix-cache", "10000") as server:
        for cached in (0, 2 * TOKENS):
            whole = json.loads(server.post(chat(messages=question, stream=False)).read())
            assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": cached}
        streamed = events(server.post(chat(messages=question)).read())
        assert streamed[-2]["usage"]["prompt_tokens_details"] == {"cached_tokens": 2 * TOKENS}


def test_without_a_cache_usage_says_nothing_of_it(tmp_path: Path) -> None:
    with simulator(tmp_path) as server:
        whole = json.loads(server.post(chat(stream=False)).read())
    assert "prompt_tokens_details" not in whole["usage"]
