"""Traces: Mooncake's, BurstGPT's, Azure's and our own; when each request came, and how long it was. The samples are
small and made up; only their columns are the real ones'."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tokenswarm.errors import DatasetError
from tokenswarm.workload.traces import TOLERATED_BACK_SECONDS, Trace, TraceEntry

MOONCAKE = (
    '{"timestamp": 27000, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]}\n'
    '{"timestamp": 27000, "input_length": 600, "output_length": 1, "hash_ids": [46, 2]}\n'
    '{"timestamp": 30535, "input_length": 512, "output_length": 26, "hash_ids": []}\n'
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n"
    "45,GPT-4,1087,0,1087,API log\n"
    "118.5,ChatGPT,417.0,276,693,Conversation log\n"
)
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 23:59:59.9799600,4808,10\r\n"
    "2023-11-17 00:00:00.0319600,3180,8\r\n"
    "2023-11-17 02:00:01.0319600+02:00,110,27\r\n"
)
OURS = 'timestamp,prompt,output_tokens\n1.5,"Hi, ""you""\nthere",20\n2,,\n2.25,b,7\n'


def read(folder: Path, text: str, name: str = "trace.jsonl", **settings: Any) -> tuple[list[TraceEntry], list[str]]:
    """Its entries, and what was told of bad lines."""
    path = folder / name
    path.write_text(text, newline="")
    told: list[str] = []
    with Trace(str(path), tell=told.append, **settings) as trace:
        entries = list(trace)
    return entries, told


def test_mooncake(tmp_path: Path) -> None:
    entries, told = read(tmp_path, MOONCAKE)
    assert entries == [
        TraceEntry(0.0, None, 1100, 52, (46, 47, 48), 1),
        TraceEntry(0.0, None, 600, 1, (46, 2), 2),
        TraceEntry(pytest.approx(3.535), None, 512, 26, (), 3),
    ]
    assert not told


def test_burstgpt_and_its_failed_requests(tmp_path: Path) -> None:
    entries, (told,) = read(tmp_path, BURSTGPT, "burst.csv")
    assert entries == [TraceEntry(0.0, None, 472, 18, (), 2), TraceEntry(113.5, None, 417, 276, (), 4)]
    assert "Bad lines of the trace that were left out: 1. burst.csv, line 3: Response tokens is 0: this request" in told


def test_azure_over_midnight_and_with_a_zone(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, AZURE, "azure.csv")
    assert [entry.at for entry in entries] == pytest.approx([0, 0.052, 1.052], abs=1e-5)
    assert [(entry.input_tokens, entry.output_tokens) for entry in entries] == [(4808, 10), (3180, 8), (110, 27)]


def test_our_own_with_and_without_a_prompt(tmp_path: Path) -> None:
    entries, _ = read(tmp_path, OURS, "ours.csv")
    assert [entry.at for entry in entries] == [0, 0.5, 0.75]
    assert [entry.output_tokens for entry in entries] == [20, None, 7]
    first, none, last = (entry.prompt for entry in entries)
    assert none is None
    assert (first.id, first.messages[0]["content"], first.output_tokens) == ("2", 'Hi, "you"\nthere', 20)
    assert (last.id, last.messages[0]["content"]) == ("5", "b")
    lines = [
        {"timestamp": 10, "messages": [{"role": "user", "content": "a"}], "input_tokens": 4, "max_tokens": 9},
        {"timestamp": "11.5"},
        {"timestamp": 12, "input_tokens": 4, "output_tokens": 9, "hash_ids": [1]},
    ]
    entries, _ = read(tmp_path, "\n".join(map(json.dumps, lines)))
    prompt = entries[0].prompt
    assert (prompt.messages[0]["content"], prompt.input_tokens, prompt.output_tokens) == ("a", 4, 9)
    assert entries[0].output_tokens == 9
    assert entries[1:] == [TraceEntry(1.5, line=2), TraceEntry(2.0, None, 4, 9, (1,), 3)]


BAD = {
    '{"timestamp": -1, "input_length": -5, "output_length": 1}': "input_length is '-5', and no whole number",
    '{"timestamp": 1, "input_length": 5, "output_length": 0}': "output_length is 0: this request failed",
    '{"timestamp": 1, "input_length": 99999999999, "output_length": 1}': "input_length is '99999999999', and no",
    '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": ["x"]}': "hash_ids is no list of whole",
    '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": "[1"}': "hash_ids is not JSON",
    '{"timestamp": "soon", "input_length": 5, "output_length": 1}': "timestamp is 'soon', and neither a number nor a",
    '{"timestamp": "nan", "input_length": 5, "output_length": 1}': "timestamp is nan, and no number of a time",
    '{"timestamp": 1' + "0" * 400 + ', "input_length": 5, "output_length": 1}': "timestamp is 1000000000",
    '{"timestamp": 1, "input_length": 1' + "0" * 400 + ', "output_length": 1}': "input_length is '1000000000",
    '{"timestamp": null, "input_length": 5, "output_length": 1}': "timestamp is None, and no number",
    '{"input_length": 5, "output_length": 1}': "timestamp is None, and no number",
    "[1]": "no JSON object",
    '{"timestamp": ': "not JSON",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_left_out_and_named_or_ends_it(tmp_path: Path, line: str) -> None:
    text = MOONCAKE + "\n" + line + "\n"
    entries, (told,) = read(tmp_path, text)
    assert len(entries) == 3
    assert f"left out: 1. trace.jsonl, line 5: {BAD[line]}" in told
    with pytest.raises(DatasetError) as raised:
        read(tmp_path, text, strict=True)
    assert f"the trace trace.jsonl, line 5: {BAD[line]}" in str(raised.value)
    assert str(raised.value).endswith("(--dataset-errors fail)")


@pytest.mark.parametrize("strict", [False, True])
def test_time_does_not_go_back(tmp_path: Path, strict: bool) -> None:
    text = "timestamp\n5\n9.5\n9.25\n8.5\n9.75\n"
    entries, _ = read(tmp_path, text, "near.csv", strict=strict)
    assert [entry.at for entry in entries] == [0, 4.5, 4.5, 4.5, 4.75], "a little is how logs are written"
    assert TOLERATED_BACK_SECONDS == 1
    with pytest.raises(DatasetError, match=r"far\.csv, line 4: 1\.500 s before .* sort it by its time first"):
        read(tmp_path, "timestamp\n5\n9.5\n8.0\n", "far.csv", strict=strict)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        (
            "a.csv",
            "id,prompt\n1,x\n",
            r"a\.csv: no trace: there is neither timestamp and input_length \(Mooncake\); .*",
        ),
        ("a.csv", "", "It is empty"),
        ("a.csv", "timestamp\n", "It is empty"),
        ("a.jsonl", "\n \n", "It is empty"),
        (
            "a.jsonl",
            '{"prompt": "x"}\n' * 3,
            r"nothing in a\.jsonl can be used\. a\.jsonl, line 1: no trace: .*'prompt'",
        ),
        (
            "a.jsonl",
            "a line of text\n" * 2000,
            r"none of its first 1,000 lines can be used\. a\.jsonl, line 1: not JSON",
        ),
    ],
)
def test_what_is_no_trace_is_said_when_it_is_opened(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DatasetError, match=complaint):
        Trace(str(path), tell=print)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No such file"):
        Trace(str(tmp_path / "none.jsonl"), tell=print)


def test_a_large_trace_is_read_as_it_is_needed(tmp_path: Path) -> None:
    """A hole of a gigabyte after the first lines: whoever read on would take seconds."""
    path = tmp_path / "trace.jsonl"
    path.write_text(MOONCAKE)
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    told: list[str] = []
    with Trace(str(path), tell=told.append) as trace:
        assert len(list(islice(trace, 3))) == 3
    assert not told
