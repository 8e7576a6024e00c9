"""The orders of a dataset: by seed, without repeats where they should be, and each prompt once over all workers."""

from __future__ import annotations

import gc
import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from tokenswarm.errors import DatasetError, TokenswarmError
from tokenswarm.workload import formats, index
from tokenswarm.workload.dataset import Contents, Dataset
from tokenswarm.workload.index import Index
from tokenswarm.workload.order import ORDERS, SAMPLED, SEQUENTIAL, SHUFFLED, Permutation, Share
from tokenswarm.workload.prompts import Exhausted, PromptSource, Source, bundled_prompts

LINES = [f"line {number}" for number in range(100)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "prompts.txt"
    found.write_text("\n".join(LINES))
    return found


def source(path: Path, order: str, worker: int = 0, workers: int = 1, seed: int = 0, **settings: Any) -> Dataset:
    contents = Contents(str(path), order=order)
    return Dataset(contents, worker=worker, workers=workers, seed=seed, **{"tell": print, **settings})


def texts(source: Source, count: int) -> list[str]:
    return [source.next().messages[-1]["content"] for _ in range(count)]


def rest(source: Source) -> Iterator[str]:
    """Everything until it is exhausted."""
    while True:
        try:
            yield source.next().messages[-1]["content"]
        except Exhausted:
            return


def dealt(path: Path, order: str, workers: int, count: int, seed: int = 0) -> list[str]:
    """What workers ask together, taking turns."""
    sources = [source(path, order, worker, workers, seed) for worker in range(workers)]
    return [texts(sources[number % workers], 1)[0] for number in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_shuffled_asks_everything_once_a_round_each_round_in_another_order(path: Path, workers: int) -> None:
    asked = dealt(path, SHUFFLED, workers, 300)
    rounds = [asked[:100], asked[100:200], asked[200:]]
    assert [sorted(each) for each in rounds] == [sorted(LINES)] * 3
    assert len({tuple(each) for each in [*rounds, LINES]}) == 4
    assert asked == dealt(path, SHUFFLED, 1, 300), "workers deal out what one would ask"
    assert asked != dealt(path, SHUFFLED, workers, 300, seed=1)


def test_sampled_draws_anew_and_each_worker_its_own(path: Path) -> None:
    first, second, again, other, late = (
        texts(source(path, SAMPLED, worker, 2, seed), 2000) for worker, seed in [(0, 5), (1, 5), (0, 5), (0, 6), (2, 5)]
    )
    assert first == again
    assert len({tuple(drawn) for drawn in (first, second, other, late)}) == 4
    for drawn in (first, second):
        count = Counter(drawn)
        assert set(count) == set(LINES)
        assert 60 < sum((count[line] - 20) ** 2 / 20 for line in LINES) < 140, "chi-square, 99 degrees of freedom"


def test_no_two_workers_draw_alike_where_they_are_forked(path: Path) -> None:
    """What is random comes from seed and seat, and not from a generator that a fork has copied."""
    contents = Contents(str(path), order=SAMPLED)
    drawn = []
    for worker in range(2):
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                found = texts(Dataset(contents, worker=worker, workers=2, tell=print), 50)
                os.write(into, json.dumps(found).encode())
            finally:
                os._exit(0)
        os.close(into)
        os.waitpid(child, 0)
        with os.fdopen(out, "rb") as pipe:
            drawn.append(json.load(pipe))
    assert drawn[0] != drawn[1]
    assert drawn == [texts(source(path, SAMPLED, worker, 2), 50) for worker in range(2)]


@pytest.mark.parametrize("order", ORDERS)
def test_a_worker_that_came_later_asks_everything(path: Path, order: str) -> None:
    late = texts(source(path, order, 3, 3), 1000)
    assert set(late) == set(LINES)
    assert late[:50] != texts(source(path, order, 0, 3), 50)


@pytest.mark.parametrize("order", [SEQUENTIAL, SHUFFLED])
@pytest.mark.parametrize("workers", [1, 2, 3, 150])
def test_once_is_each_prompt_once_over_all_workers(path: Path, order: str, workers: int) -> None:
    asked = [list(rest(source(path, order, worker, workers, once=True))) for worker in range(workers)]
    assert sorted(text for each in asked for text in each) == sorted(LINES)
    assert max(map(len, asked)) - min(map(len, asked)) <= 1
    late = source(path, order, workers, workers, once=True)
    for _ in range(2):
        with pytest.raises(Exhausted, match=r"prompts\.txt has been asked once"):
            late.next()


@pytest.mark.parametrize("order", [SEQUENTIAL, SHUFFLED])
def test_once_leaves_bad_and_blank_lines_out_and_tells_the_bad_ones(tmp_path: Path, order: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('one\n\n{"bad": 1}\ntwo\n \n[]\nthree\n')
    told: list[str] = []
    sources = [source(path, order, worker, 2, once=True, tell=told.append) for worker in range(2)]
    assert sorted(text for each in sources for text in rest(each)) == ["one", "three", "two"]
    for each in sources:
        each.close()
    assert sum(text.count("line 3: ") for text in told) == sum(text.count("line 6: ") for text in told) == 1


@pytest.mark.parametrize("order", [SEQUENTIAL, SHUFFLED])
@pytest.mark.parametrize("workers", [1, 2, 300])
def test_the_bundled_questions_once(order: str, workers: int) -> None:
    prompts = bundled_prompts()
    sources = [
        PromptSource(prompts, seed=3, worker=worker, workers=workers, order=order, once=True)
        for worker in range(workers)
    ]
    asked = [text for each in sources for text in rest(each)]
    assert sorted(asked) == sorted(prompt.messages[-1]["content"] for prompt in prompts)
    late = PromptSource(prompts, seed=3, worker=workers, workers=workers, order=order, once=True)
    assert list(rest(late)) == []
    assert issubclass(Exhausted, TokenswarmError)


def test_the_bundled_questions_in_each_order() -> None:
    prompts = bundled_prompts()
    ids = [prompt.id for prompt in prompts]
    asked = {
        order: [each.next().id for _ in range(2 * len(ids))]
        for order in ORDERS
        for each in [PromptSource(prompts, seed=0, worker=0, order=order)]
    }
    assert asked[SEQUENTIAL] == 2 * ids
    assert sorted(asked[SHUFFLED]) == sorted(2 * ids)
    assert len(set(asked[SAMPLED][: len(ids)])) < 0.75 * len(ids), "drawn with replacement: 63 % of them on average"


def test_a_bad_line_that_is_drawn_often_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("one\n{}\n")
    told: list[str] = []
    each = source(path, SAMPLED, tell=told.append)
    assert set(texts(each, 50)) == {"one"}
    each.close()
    assert "counted at each draw" in told[0]
    assert told[0].count("line 2") == 1


@pytest.mark.parametrize("order", [SHUFFLED, SAMPLED])
def test_strict_ends_at_a_bad_line_in_any_order(tmp_path: Path, order: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("one\n" + "{}\n" * 9)
    each = Dataset(Contents(str(path), order=order, strict=True), worker=0, strict=True, tell=print)
    with pytest.raises(DatasetError, match=r"prompts\.jsonl, line \d+: none of .* \(--dataset-errors fail\)"):
        texts(each, 20)


@pytest.mark.parametrize("order", [SHUFFLED, SAMPLED])
def test_a_file_that_became_shorter_ends_the_run(path: Path, order: str) -> None:
    contents = Contents(str(path), order=order)
    each = Dataset(contents, worker=0, tell=print)
    assert not contents.changed()
    path.write_text("short")
    assert contents.changed()
    with pytest.raises(DatasetError, match="not there any more"):
        texts(each, 100)


# Numbers


def test_a_share_of_a_round_goes_on_where_the_one_before_stopped() -> None:
    shares = [Share(SEQUENTIAL, 2, seed=0, worker=worker, workers=3) for worker in range(3)]
    rounds = [[list(share.round()) for share in shares] for _ in range(3)]
    assert rounds == [[[0], [1], []], [[1], [], [0]], [[], [0], [1]]]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 10, 99, 100, 101, 1000])
def test_a_permutation_has_every_number_once(count: int) -> None:
    for seed in range(5):
        assert sorted(Permutation(count, str(seed))) == list(range(count))


def test_all_orders_of_a_few_are_equally_likely() -> None:
    count = Counter(tuple(Permutation(4, f"seed {seed}")) for seed in range(2400))
    assert len(count) == 24
    assert sum((found - 100) ** 2 / 100 for found in count.values()) < 49.7, "chi-square, 99.9 % at 23 degrees"


def test_neighbours_are_as_rare_as_chance_has_them() -> None:
    """In a random order of n, on average (n - 1) / n numbers stand right after the one below them."""
    orders = [list(Permutation(50, f"seed {seed}")) for seed in range(100)]
    neighbours = sum(b == a + 1 for order in orders for a, b in pairwise(order))
    assert neighbours / len(orders) == pytest.approx(0.98, abs=0.15)


def test_orders_are_the_same_in_every_process_and_release() -> None:
    assert "".join("abcdefgh"[number] for number in Permutation(8, "seed 1, round 0")) == "fdgbaehc"
    assert list(Share(SAMPLED, 8, seed=1, worker=0).round()) == [7, 1, 1, 3, 7, 7, 2, 0]


# Where records are


KINDS = {
    "lines.txt": "".join(f"line {number}\r\n" + "\n" * (number % 3) for number in range(100)),
    "no_end.jsonl": "\ufeff" + "\n".join(json.dumps({"prompt": "x" * (number % 77 + 1)}) for number in range(100)),
    "table.csv": "\ufeffid,prompt\n" + "".join(f'{n},"say ""{n}"",\n\nplease"\r\n{n},plain\n\n' for n in range(100)),
    "array.json": json.dumps(
        [{"prompt": f"{number}\n é 😀 {{[" * (number % 9 + 1)} for number in range(100)], indent=1
    ),
    "one_line.json": "[" + ", ".join(json.dumps({"prompt": f"é{n}"}, ensure_ascii=False) for n in range(100)) + "]",
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("spacing", [1, 50, 1000, 10**6])
def test_every_record_is_found_by_its_number(tmp_path: Path, name: str, spacing: int) -> None:
    path = tmp_path / name
    path.write_bytes(KINDS[name].encode())
    with path.open("rb") as file:
        form = formats.format_of(file, name, path.suffix, None)
        in_order = list(form.records(file, form.first))
        found = Index(form.marks(file, spacing))
        assert len(found) == len(in_order) >= 100
        assert [found.record(number, file, form.records) for number in range(len(found))] == in_order
    raw = path.read_bytes()
    for record in in_order:
        assert raw[record.place.offset :].removeprefix(b"\xef\xbb\xbf").startswith(record.data.rstrip())
        assert raw.count(b"\n", 0, record.place.offset) + 1 == record.place.line


@pytest.mark.parametrize("name", KINDS)
def test_marks_are_as_far_apart_as_they_should_be(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(KINDS[name].encode())
    with path.open("rb") as file:
        found = list(formats.format_of(file, name, path.suffix, None).marks(file, 300))
    assert path.stat().st_size / 600 < len(found) < path.stat().st_size / 150


def test_an_index_has_no_more_than_so_many_marks() -> None:
    for size in (0, 10**6, 10**10, 10**13):
        assert size / index.spacing(size) < 1.1 * index.MOST_MARKS


def test_a_large_file_in_another_order_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    line = json.dumps({"messages": [{"role": "user", "content": "x" * 100}]}).encode() + b"\n"
    path.write_bytes(line * 100_000)
    gc.collect()
    tracemalloc.start()
    try:
        each = source(path, SHUFFLED)
        for prompt in islice(iter(each.next, None), 300):
            assert prompt.then == ()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3e6, "bytes; a list of as many integers would be more"
