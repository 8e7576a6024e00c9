"""Prompts that are made up: their lengths and order, what they have in common, and what is new every time."""

from __future__ import annotations

import gevent
import pytest

from tokenswarm.errors import WritingError
from tokenswarm.workload import lengths, synthetic
from tokenswarm.workload.ahead import READY, Ahead
from tokenswarm.workload.prompts import Prompt
from tokenswarm.workload.synthetic import Prefixes, Replayed, Synthetic, headed, made_unique
from tokenswarm.workload.tokenizer import ESTIMATE
from tokenswarm.workload.writing import Writer

WRITER = Writer(ESTIMATE)
HELLO = Prompt("1", ({"role": "user", "content": "hello"},), input_tokens=2)


def source(worker: int = 0, workers: int = 1, stream: str = "", seed: int = 0, unique: bool = False) -> Synthetic:
    given = lengths.parse("uniform:20-60")
    return Synthetic(WRITER, given, seed=seed, worker=worker, workers=workers, stream=stream, unique=unique)


def texts(made: Synthetic, count: int) -> list[str]:
    return [made.next().messages[0]["content"] for _ in range(count)]


def test_a_prompt_has_the_length_that_was_drawn_and_says_so() -> None:
    made = source()
    prompts = [made.next() for _ in range(1000)]
    assert {prompt.input_tokens for prompt in prompts} == set(range(20, 61))
    assert all(ESTIMATE.count(prompt.messages[0]["content"]) == prompt.input_tokens for prompt in prompts)


def test_workers_ask_together_what_one_would_ask_and_none_what_another_does() -> None:
    alone = texts(source(), 12)
    by_three = [texts(source(worker, 3), 4) for worker in range(3)]
    assert [by_three[n % 3][n // 3] for n in range(12)] == alone
    assert len(set(alone)) == 12


def test_whoever_comes_later_another_class_and_another_seed_ask_something_else() -> None:
    streams = [source(), source(2, 2), source(3, 2), source(stream=", class Rag"), source(seed=1)]
    found = [text for made in streams for text in texts(made, 20)]
    assert len(set(found)) == len(found)


def test_unique_prompts_differ_from_their_first_characters_on_also_from_those_of_the_same_seed() -> None:
    found = texts(source(unique=True), 50) + texts(source(unique=True), 50)
    assert len({text[:8] for text in found}) == 100
    assert all(ESTIMATE.count(text) in range(20, 61) for text in found)
    short = Synthetic(WRITER, lengths.parse("normal:6,5"), seed=0, worker=0, unique=True)
    assert min(map(ESTIMATE.count, texts(short, 100))) == 4, "none is shorter than its id"


def test_a_pool_is_the_same_for_all_workers() -> None:
    pools = [Prefixes(WRITER, 40, pool=5, seed=3, worker=worker) for worker in range(2)]
    first, second = ([pool.next() for _ in range(100)] for pool in pools)
    assert {prefix.text for prefix in first} == {prefix.text for prefix in second}
    assert len({prefix.text for prefix in first}) == 5
    assert [prefix.text for prefix in first] != [prefix.text for prefix in second], "each draws for itself"
    assert {(prefix.tokens, prefix.shared, ESTIMATE.count(prefix.text)) for prefix in first} == {(40, 40, 40)}


def test_a_large_pool_is_not_kept_in_memory_and_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Prefixes(WRITER, 40, pool=30, seed=3, worker=0)
    monkeypatch.setattr(synthetic, "KEPT_TOKENS", 80)
    forgetful = Prefixes(WRITER, 40, pool=30, seed=3, worker=0)
    assert [forgetful.next() for _ in range(200)] == [kept.next() for _ in range(200)]
    assert forgetful._pooled.cache_info().currsize == 2


def test_the_share_has_a_prefix_of_the_pool_and_the_others_one_that_never_was() -> None:
    pools = [Prefixes(WRITER, 40, pool=5, share=0.8, seed=3, worker=0) for _ in range(2)]
    drawn = [pool.next() for pool in pools for _ in range(1000)]
    fresh = [prefix.text for prefix in drawn if prefix.shared == 0]
    assert len(fresh) / len(drawn) == pytest.approx(0.2, abs=0.03)
    assert len({text[:8] for text in fresh}) == len(fresh), "not even the same seed gives them again"
    assert {ESTIMATE.count(text) for text in fresh} == {40}


def test_an_entry_of_a_trace_is_as_long_as_it_says_and_begins_as_its_blocks_say() -> None:
    first, second = (Replayed(WRITER, seed=1) for _ in range(2))
    one = first.prompt(1, 1400, (7, 8, 9))
    other = second.prompt(2, 1300, (7, 8, 10))
    alone = first.prompt(3, 40)
    long, short, least = (prompt.messages[0]["content"] for prompt in (one, other, alone))
    assert [ESTIMATE.count(text) for text in (long, short, least)] == [1400, 1300, 40]
    assert (one.id, one.input_tokens) == ("1", 1400)
    assert long[: 4 * 1000] == short[: 4 * 1000], "the first two blocks, written by two processes"
    assert long[4 * 1024 : 4 * 1100] != short[4 * 1024 : 4 * 1100]
    assert least[:20] != long[:20]
    assert ESTIMATE.count(first.prompt(4, 512, (7,)).messages[0]["content"]) == 512
    unique = first.prompt(5, 1400, (7, 8, 9), "0123456789abcdef").messages[0]["content"]
    assert (unique[:17], ESTIMATE.count(unique)) == ("0123456789abcdef ", 1400), "its id is part of its length"


def test_a_prefix_is_a_system_message_and_part_of_what_is_meant() -> None:
    prefix = Prefixes(WRITER, 40, seed=3, worker=0).next()
    found = headed(HELLO, prefix)
    assert [message["role"] for message in found.messages] == ["system", "user"]
    assert (found.input_tokens, found.prefix_tokens) == (42, 40)
    assert headed(found, prefix) is found, "a system message of its own stays"


def test_what_is_made_unique_is_so_at_its_very_beginning() -> None:
    found, other = made_unique(HELLO, ESTIMATE), made_unique(HELLO, ESTIMATE)
    text = found.messages[0]["content"]
    assert text.endswith(" hello")
    assert text[:8] != other.messages[0]["content"][:8]
    assert found.input_tokens == ESTIMATE.count(text)
    assert found.prefix_tokens == 0


def test_what_is_made_ahead_comes_in_order_from_a_thread_of_its_own_and_errors_in_their_place() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        if len(made) == 3:
            raise WritingError("the third")
        return made[-1]

    ahead = Ahead(make)
    assert [ahead.next(), ahead.next()] == [0, 1]
    with pytest.raises(WritingError, match="the third"):
        ahead.next()
    assert [ahead.next() for _ in range(200)] == list(range(3, 203))
    ahead.close()
    gevent.sleep(0)
    assert len(made) <= 203 + READY + 8, "no more than a few are made in vain"
