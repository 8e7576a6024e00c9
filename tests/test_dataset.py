"""Datasets: what a line may be, how lines are dealt out, and what becomes of bad ones. Orders: test_dataset_order.py;
columns: test_dataset_columns.py; runs: test_dataset_runs.py."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenswarm.errors import DatasetError
from tokenswarm.protocols.base import Message
from tokenswarm.workload import arrays, formats
from tokenswarm.workload.dataset import Contents, Dataset
from tokenswarm.workload.left_out import MOST_BAD_AT_FIRST
from tokenswarm.workload.lines import read_line
from tokenswarm.workload.prompts import Prompt
from tokenswarm.workload.records import MOST_RECORD_BYTES, Record, line_marks, lines

MIB = 1024 * 1024


def written(folder: Path, *lines: Any, name: str = "prompts.jsonl") -> Path:
    """A file of these lines: bytes and texts as they are, the rest as JSON."""
    path = folder / name
    raw = [line if isinstance(line, bytes) else _text(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return path


def _text(line: Any) -> str:
    return line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)


class Read(Dataset):
    """A dataset and what it told."""

    def __init__(
        self, path: Path, worker: int = 0, workers: int = 1, *, strict: bool = False, system_prompt: str | None = None
    ) -> None:
        self.told: list[str] = []
        contents = Contents(str(path), strict=strict)
        tell = self.told.append
        super().__init__(
            contents, worker=worker, workers=workers, strict=strict, system_prompt=system_prompt, tell=tell
        )

    def texts(self, count: int) -> list[str]:
        return [self.next().messages[-1]["content"] for _ in range(count)]


def said(messages: Sequence[Message]) -> str:
    return " ".join(f"{message['role'][0]}:{message['content']}" for message in messages)


def turns(prompt: Prompt) -> list[tuple[str, str | None]]:
    """What each turn adds, and the dataset's reply to it."""
    assert prompt.then is not None
    return [(said(turn.messages), turn.reply) for turn in (prompt, *prompt.then)]


@pytest.mark.parametrize(
    "line", ["What is rain?", "  What is rain? \r", '"What is rain?"', '{"id": 7, "prompt": "What is rain?"}']
)
def test_one_prompt(line: str) -> None:
    prompt = read_line(line.encode(), "1")
    assert (said(prompt.messages), prompt.then, prompt.id) == ("u:What is rain?", None, "1")


WHOLE = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]
SHAREGPT = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["a", "c"], [("u:a", None), ("u:c", None)]),
        ({"turns": ["a", "c"]}, [("u:a", None), ("u:c", None)]),
        (WHOLE, [("s:Be kind. u:a", "b"), ("u:c", None)]),
        ({"messages": WHOLE}, [("s:Be kind. u:a", "b"), ("u:c", None)]),
        ({"prompt": WHOLE[:2]}, [("s:Be kind. u:a", None)]),
        ({"id": "x", "conversations": SHAREGPT}, [("u:a", "b"), ("u:c", None)]),
        ([SHAREGPT[1], *SHAREGPT], [("u:a", "b"), ("u:c", None)]),
        ([*SHAREGPT[:2], SHAREGPT[1], SHAREGPT[2]], [("u:a", "b\n\nb"), ("u:c", None)]),
        ([WHOLE[1], WHOLE[3]], [("u:a", None), ("u:c", None)]),
        ([WHOLE[1], WHOLE[2], WHOLE[0], WHOLE[3]], [("u:a", "b"), ("s:Be kind. u:c", None)]),
        ([{"role": "user", "content": [{"text": "a"}, {"type": "text", "text": "c"}]}], [("u:ac", None)]),
    ],
)  # fmt: skip
def test_conversations(line: Any, expected: list[tuple[str, str | None]]) -> None:
    assert turns(read_line(json.dumps(line).encode(), "1")) == expected


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"prompt": "cut', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "none of messages"),
        (b'{"prompt": 7}', "neither a text nor a list"),
        (b'{"prompt": "  "}', "the prompt is empty"),
        (b"[]", "no message of a user"),
        (b'[{"role": "assistant", "content": "hi"}]', "no message of a user"),
        (b'["a", 7]', "message 2 is neither a text nor an object"),
        (b'[{"role": "user"}]', "message 1 is no text"),
        (b'[{"role": "tool", "content": "7"}]', "message 1 is of 'tool', which cannot be replayed"),
        (b'[{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]', "message 1 is no text"),
        (b"caf\xe9", "not UTF-8"),
        (b"a\0b", "NUL"),
    ],
)
def test_a_bad_line_says_what_is_wrong(tmp_path: Path, line: bytes, complaint: str) -> None:
    path = written(tmp_path, "good", b"", line)
    read = Read(path)
    assert read.texts(2) == ["good", "good"]
    read.close()
    (told,) = read.told
    assert "prompts.jsonl, line 3: " in told
    assert complaint in told


def test_a_text_file_is_taken_as_it_stands(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf[INST] hi [/INST]", "{x}", name="prompts.txt")
    assert Read(path).texts(2) == ["[INST] hi [/INST]", "{x}"]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_file_may_be_one_array(tmp_path: Path, indent: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_READ_BYTES", 7)
    entries = [{"conversations": SHAREGPT}, {"id": 2, "conversations": [{"from": "human", "value": '你好，\n"x" 😀'}]}]
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps([*entries, {"conversations": []}], indent=indent, ensure_ascii=False))
    read = Read(path)
    prompts = [read.next() for _ in range(3)]
    assert [turns(prompt) for prompt in prompts[:2]] == [[("u:a", "b"), ("u:c", None)], [('u:你好，\n"x" 😀', None)]]
    assert turns(prompts[2]) == turns(prompts[0]), "from the beginning again"
    read.close()
    text = path.read_text()
    assert f"line {text.count(chr(10), 0, text.rindex('{')) + 1}: no message of a user" in read.told[0]


def test_a_json_file_may_be_lines_too(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE, ["a", "c"], {"prompt": "d"}, name="chats.json")
    read = Read(path)
    assert [said(read.next().messages) for _ in range(3)] == ["s:Be kind. u:a", "u:a", "u:d"]


@pytest.mark.parametrize("rest", ["", "{", '{"prompt": "cut', "}", "nonsense, nonsense]"])
def test_an_array_that_breaks_off_is_told(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(f'[{{"prompt": "good"}},\n{rest}')
    read = Read(path)
    assert read.texts(2) == ["good", "good"]
    read.close()
    assert "broken.json, line 2: " in read.told[0]


def test_what_is_not_utf_8_in_an_array_is_a_bad_element(tmp_path: Path) -> None:
    read = Read(
        written(tmp_path, b'[{"prompt": "a"},', b'{"prompt": "caf\xe9"},', b'{"prompt": "b"}]', name="prompts.json")
    )
    assert read.texts(3) == ["a", "b", "a"]
    read.close()
    assert "prompts.json, line 2: not JSON: 'utf-8' codec" in read.told[0]


def test_bad_lines_are_counted_once_and_the_first_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "good", *(["{}"] * 7))
    read = Read(path)
    read.texts(5)
    read.close()
    (told,) = read.told
    assert told.startswith("Bad lines of the dataset that were left out: 7. ")
    assert [f"line {n}:" in told for n in range(2, 9)] == [True] * 5 + [False] * 2
    assert "and 2 more" in told


def test_strict_means_that_the_first_bad_line_is_an_error(tmp_path: Path) -> None:
    read = Read(written(tmp_path, "good", "{}"), strict=True)
    assert read.texts(1) == ["good"]
    with pytest.raises(DatasetError, match=r"prompts\.jsonl, line 2: none of messages"):
        read.next()


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [((), "empty"), (("", " "), "empty"), (("{}", "{}"), "line 1: none of"), (("{}",) * 2000, "first 1,000 lines")],
)
@pytest.mark.parametrize("strict", [False, True])
def test_nothing_to_ask_is_said_before_any_load(
    tmp_path: Path, lines: tuple[str, ...], complaint: str, strict: bool
) -> None:
    assert MOST_BAD_AT_FIRST == 1000
    with pytest.raises(DatasetError, match="line 1: none of" if strict and lines[:1] == ("{}",) else complaint):
        Read(written(tmp_path, *lines), strict=strict)


@pytest.mark.parametrize(
    ("name", "advice"), [("a.parquet", "to_json"), ("a.jsonl.gz", "unpack"), ("a.xlsx", "save the sheet as CSV")]
)
def test_what_is_not_read_is_said_with_what_to_do(tmp_path: Path, name: str, advice: str) -> None:
    with pytest.raises(DatasetError, match=f"are not read; .*{advice}"):
        Read(written(tmp_path, "x", name=name))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No such file"):
        Read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_deal_the_lines_out_in_their_order_round_after_round(tmp_path: Path, workers: int) -> None:
    lines = [f"line {number}" for number in range(10)]
    path = written(tmp_path, *lines)
    reads = [Read(path, worker, workers) for worker in range(workers)]
    dealt = [reads[number % workers].next().messages[0]["content"] for number in range(3 * len(lines))]
    assert dealt == 3 * lines


def test_each_bad_line_is_told_by_one_worker(tmp_path: Path) -> None:
    path = written(tmp_path, "a", "{}", "b", "[]", "c", "d")
    reads = [Read(path, worker, 2) for worker in range(2)]
    for read in reads:
        read.texts(5)
        read.close()
    told = [line for read in reads for line in read.told]
    assert len(told) == 1, "both are the second worker's"
    assert "2. prompts.jsonl, line 2" in told[0]


def test_a_worker_is_never_left_without_a_prompt(tmp_path: Path) -> None:
    path = written(tmp_path, "a", "{}")
    assert Read(path, 1, 2).texts(2) == ["a", "a"]
    assert Read(path, 5, 2).texts(2) == ["a", "a"], "one that came later asks everything"


def test_a_file_that_was_emptied_meanwhile_ends_the_run_instead_of_it(tmp_path: Path) -> None:
    path = written(tmp_path, '"one"', '"two"', '"three"')
    for workers in (1, 2, 3):
        source = Read(path, 0, workers)
        source.next()
        kept = path.read_bytes()
        path.write_bytes(b"")
        with pytest.raises(DatasetError, match="any more"):
            list(islice(iter(source.next, None), 10))
        path.write_bytes(kept)
        source.close()


@pytest.mark.parametrize("line", ["\u3000", "\ufeff", "\u00a0 \u2003"])
def test_a_line_that_shows_nothing_is_no_prompt(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(f"{line}\nhello", encoding="utf-8")
    assert Read(path).next().messages[0]["content"] == "hello"


def test_a_datasets_own_system_message_is_kept(tmp_path: Path) -> None:
    read = Read(written(tmp_path, "hi", WHOLE), system_prompt="Be brief.")
    assert [said(read.next().messages) for _ in range(2)] == ["s:Be brief. u:hi", "s:Be kind. u:a"]


def test_a_line_without_end_is_a_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"good\n" + b"x" * (2 * MOST_RECORD_BYTES + 7) + b"\nlast\n")
    read = Read(path)
    assert read.texts(3) == ["good", "last", "good"]
    read.close()
    assert "line 2: longer than" in read.told[0]


def test_a_large_file_starts_at_once_and_stays_on_the_disk(tmp_path: Path) -> None:
    """A hole of a gigabyte after the first lines: whoever read it all, or kept it, would be seen."""
    path = written(tmp_path, *(f"question {number}" for number in range(1000)))
    with path.open("r+b") as file:
        file.truncate(1024 * MIB)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    read = Read(path)
    assert read.texts(1000)[-1] == "question 999"
    assert time.thread_time() - began < 1, "of CPU, which a busy machine does not change"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50
    read.close()


def test_many_lines_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    line = json.dumps({"messages": [{"role": "user", "content": "x" * 500}]}).encode() + b"\n"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(line * 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = Read(path, worker=1, workers=50)
    for prompt in islice(iter(read.next, None), 2000):
        assert prompt.then == ()
    assert read._round == 0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50


def test_a_large_array_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    line = json.dumps({"conversations": [{"from": "human", "value": "x" * 500}]}).encode() + b",\n"
    with path.open("wb") as file:
        file.write(b"[")
        for _ in range(100):
            file.write(line * 1000)
        file.write(b"{}]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = Read(path)
    for _ in range(100_000):
        read.next()
    assert read._round == 0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["a", "", "user", "gpt"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "from", "value", "messages", "conversations", "turns", "prompt", "text"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
@settings(deadline=None)
def test_any_line_is_a_prompt_or_says_what_is_wrong(line: bytes) -> None:
    try:
        prompt = read_line(line, "1")
    except ValueError as error:
        assert str(error)
        return
    assert prompt.messages[-1]["role"] == "user"


def test_a_format_is_an_entry_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(file: Any, start: Any) -> Any:
        for record in lines(file, start):
            for half in record.data.split(b"|"):
                yield Record(record.place, half)

    form = formats.Format(halves, lambda record, identity: read_line(record.data, identity), line_marks)
    monkeypatch.setitem(formats.FORMATS, ".halves", lambda file, name, column: form)
    assert Read(written(tmp_path, "a|b", "c", name="x.halves")).texts(3) == ["a", "b", "c"]
