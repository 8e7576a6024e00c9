"""Tables and objects: which column holds the prompt, what a row of CSV may look like, and lengths that it asks for."""

from __future__ import annotations

import csv
import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenswarm.errors import DatasetError
from tokenswarm.workload import tables
from tokenswarm.workload.dataset import Contents, Dataset
from tokenswarm.workload.prompts import Prompt
from tokenswarm.workload.tables import Table


def prompts(folder: Path, text: str | bytes, count: int, name: str = "prompts.csv", column: str | None = None) -> Any:
    """The first prompts of a file with this content, and what was left out of it."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    told: list[str] = []
    dataset = Dataset(Contents(str(path), column=column), worker=0, tell=told.append)
    found = [dataset.next() for _ in range(count)]
    dataset.close()
    return found, told


def asked(prompt: Prompt) -> str:
    return " ".join(f"{message['role'][0]}:{message['content']}" for message in prompt.messages)


def texts(folder: Path, text: str | bytes, count: int, **settings: Any) -> list[str]:
    return [asked(prompt)[2:] for prompt in prompts(folder, text, count, **settings)[0]]


@pytest.mark.parametrize("column", ["prompt", "question", "instruction", "input", "query", "text", "content"])
def test_the_usual_names_are_found(tmp_path: Path, column: str) -> None:
    assert texts(tmp_path, f"id,{column}\n7,What is rain?\n", 1) == ["What is rain?"]
    assert texts(tmp_path, f'{{"id": 7, "{column}": "What is rain?"}}\n', 1, name="a.jsonl") == ["What is rain?"]


def test_the_first_of_the_usual_names_is_taken_or_the_one_that_is_asked_for(tmp_path: Path) -> None:
    table = "text,prompt,Zusatz\na,b,c\n"
    assert texts(tmp_path, table, 1) == ["b"]
    assert texts(tmp_path, table, 1, column="Zusatz") == ["c"]
    objects = '{"text": "a", "prompt": "b", "Zusatz": "c"}\n'
    assert texts(tmp_path, objects, 1, name="a.jsonl") == ["b"]
    assert texts(tmp_path, objects, 1, name="a.jsonl", column="Zusatz") == ["c"]
    assert texts(tmp_path, f"[{objects}]", 1, name="a.json", column="Zusatz") == ["c"]


@pytest.mark.parametrize(
    ("name", "text", "column", "complaint"),
    [
        ("a.csv", "id,title\n1,x\n", None, r"none of messages, .*prompt.* but 'id', 'title'; --dataset-column NAME"),
        ("a.csv", "id,title\n1,x\n", "prompt", r"there is no 'prompt' in it, but 'id', 'title'"),
        ("a.jsonl", '{"id": 1, "title": "x"}\n', None, r"line 1: none of .*but 'id', 'title'; --dataset-column NAME"),
        ("a.jsonl", '{"id": 1, "title": "x"}\n', "prompt", r"line 1: there is no 'prompt' in it, but 'id', 'title'"),
        ("a.jsonl", '"a text"\n', "prompt", r"line 1: no object, so it has no field 'prompt'"),
        ("a.jsonl", "a text\n", "prompt", r"line 1: not JSON"),
        ("a.txt", "a text\n", "prompt", r"a\.txt is plain text and has no columns"),
        ("a.csv", "", None, r"nothing in a\.csv can be used\. It is empty"),
        ("a.csv", "prompt\n\n", None, r"nothing in a\.csv can be used\. It is empty"),
        ("a.csv", "prompt,prompt\n1,2\n", None, r"two columns have the name 'prompt'"),
        ("a.csv", b"\xff\xfep\0r\0\n\0", None, r"a\.csv, line 1: not UTF-8 .*; it must name the columns"),
        ("a.csv", '"prompt\n1\n2\n', None, r"a\.csv, line 1: a quotation mark opens a cell in this line, and none"),
    ],
)
def test_what_cannot_be_a_dataset_is_said_before_any_load(
    tmp_path: Path, name: str, text: str | bytes, column: str | None, complaint: str
) -> None:
    with pytest.raises(DatasetError, match=complaint):
        prompts(tmp_path, text, 1, name=name, column=column)


def test_a_table_with_many_columns_names_some(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'c19' and 80 more"):
        prompts(tmp_path, ",".join(f"c{number}" for number in range(100)) + "\n", 1)


SPREADSHEET = (
    '\ufeff"id",prompt,note\r\n'
    '1,"Say ""hi"",\r\nplease",\r\n'
    "\r\n"
    '2,an inch is 1" long,"two\n\nlines"\r\n'
    '3,"","x"\r\n'
    '4,"晴れ",\r\n'
    "5,short\r\n"
    '6,last,"y"'
)


def test_a_spreadsheets_csv(tmp_path: Path) -> None:
    found, (told,) = prompts(tmp_path, SPREADSHEET, 5)
    assert [asked(prompt) for prompt in found[:4]] == [
        'u:Say "hi",\r\nplease',
        'u:an inch is 1" long',
        "u:晴れ",
        "u:last",
    ]
    assert [prompt.id for prompt in found] == ["2", "5", "9", "11", "2"], "the line that it begins in"
    assert "left out: 2. prompts.csv, line 8: the prompt is empty; prompts.csv, line 10: 2 cells, where there" in told


@pytest.mark.parametrize(("name", "delimiter"), [("a.tsv", "\t"), ("a.csv", ";"), ("a.csv", "\t"), ("a.csv", ",")])
def test_what_is_between_the_cells_is_found(tmp_path: Path, name: str, delimiter: str) -> None:
    table = f'id{delimiter}prompt\n1{delimiter}"a{delimiter}b"\n2{delimiter}c\n'
    assert texts(tmp_path, table, 2, name=name) == [f"a{delimiter}b", "c"]


def test_one_column_is_a_table_too(tmp_path: Path) -> None:
    assert texts(tmp_path, 'prompt\nWhat is rain?\n"a, b"\n', 2) == ["What is rain?", "a, b"]


def test_a_bad_row_costs_no_other_one(tmp_path: Path) -> None:
    rows = ['1,"a"x', "2,b", "3,c,d", b"4,\xff", '5,"never closed', "6,e", "7,f"]
    raw = b"\n".join(row if isinstance(row, bytes) else row.encode() for row in ["id,prompt", *rows])
    found, (told,) = prompts(tmp_path, raw, 4)
    assert [asked(prompt) for prompt in found] == ["u:b", "u:e", "u:f", "u:b"]
    assert "left out: 4. " in told
    for complaint in (
        "line 2: not CSV: ",
        "line 4: 3 cells, where there are 2 columns",
        "line 5: not UTF-8",
        "line 6: a quotation mark opens a cell in this line, and none closes it",
    ):
        assert f"prompts.csv, {complaint}" in told


def test_a_long_row_is_a_bad_one_and_the_next_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_RECORD_BYTES", 1000)
    monkeypatch.setattr(tables, "_READ_BYTES", 300)
    long = "x" * 5000
    found, (told,) = prompts(tmp_path, f'prompt\na\n{long}\nb\n"{long}\nc\nd\n', 4)
    assert [asked(prompt) for prompt in found] == ["u:a", "u:b", "u:c", "u:d"]
    assert "left out: 2. prompts.csv, line 3: longer than" in told
    assert "prompts.csv, line 5: longer than" in told


def test_ceval_rows_are_questions_with_their_choices(tmp_path: Path) -> None:
    table = 'id,question,A,B,C,D,answer,explanation\n0,"下列哪个是质数？____",4,6,7,9,C,"7 只能被 1 和 7 整除"\n'
    (prompt, _), told = prompts(tmp_path, table, 2)
    assert asked(prompt) == "u:下列哪个是质数？____\nA. 4\nB. 6\nC. 7\nD. 9"
    assert not told
    assert texts(tmp_path, table, 1, column="question") == ["下列哪个是质数？____"]
    assert texts(tmp_path, "id,question,A,B,C,D\n0,q,1,2,3,4\n", 1) == ["q\nA. 1\nB. 2\nC. 3\nD. 4"], "a test set's"
    line = '{"question": "q", "A": 1, "B": 2, "C": 3, "D": 4}'
    assert texts(tmp_path, line, 1, name="a.jsonl") == ["q\nA. 1\nB. 2\nC. 3\nD. 4"]


def test_a_cell_may_be_a_whole_conversation(tmp_path: Path) -> None:
    cell = '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]'
    out = io.StringIO()
    csv.writer(out).writerows([["id", "messages"], [1, cell], [2, "no JSON"], [3, '["[INST]"]']])
    found, (told,) = prompts(tmp_path, out.getvalue(), 3)
    assert asked(found[0]) == "u:a"
    assert [turn.messages[0]["content"] for turn in found[0].then] == ["c"]
    assert "line 3: messages is not JSON" in told
    assert texts(tmp_path, 'prompt\n"[""a"", ""b""]"\n', 1) == ['["a", "b"]'], "a text is taken as it stands"


@pytest.mark.parametrize("name", ["output_tokens", "max_tokens"])
def test_a_record_may_say_how_long_its_reply_should_be(tmp_path: Path, name: str) -> None:
    found, told = prompts(tmp_path, f"prompt,{name}\na,20\nb,\nc,30.0\nd,0\ne,many\nf,1.5\n", 3)
    assert [prompt.output_tokens for prompt in found] == [20, None, 30]
    found, (told,) = prompts(tmp_path, f"prompt,{name}\na,20\nd,0\ne,many\nf,1.5\ng,nan\n", 2)
    for line, value in ((3, "0"), (4, "many"), (5, "1.5"), (6, "nan")):
        assert f"line {line}: {name} is {value!r}, and no whole number from 1 to 10,000,000" in told
    lines = [{"prompt": "a", name: 20}, {"messages": ["b", "c"], name: None}]
    lines += [{"prompt": "d", name: True}, {"prompt": "e", name: 10**400}]
    found, (told,) = prompts(tmp_path, "\n".join(map(json.dumps, lines)), 3, name="a.jsonl")
    assert [prompt.output_tokens for prompt in found] == [20, None, 20]
    assert f"line 3: {name} is 'True'" in told
    assert f"line 4: {name} is '1000000" in told


CELLS = st.text(st.sampled_from('ab,;"\n\r\t é'), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from([1, 7, 1000]), st.booleans())
@settings(deadline=None)
def test_tables_are_read_as_they_were_written(rows: list[tuple[str, str]], size: int, everything_quoted: bool) -> None:
    """The standard library writes them; where it needs no quotation marks, we need none."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL if everything_quoted else csv.QUOTE_MINIMAL)
    writer.writerows([("x,1", "y"), *rows])
    file = io.BytesIO(out.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_READ_BYTES", size)
        table = Table(file, "x.csv")
        records = [record for record in table.records(file, table.first) if not record.blank]
    expected = [dict(zip(("x,1", "y"), row, strict=True)) for row in rows]
    assert [table.row(record) for record in records] == expected


@given(st.binary(max_size=60), st.sampled_from([3, 1000]))
@settings(deadline=None)
def test_any_bytes_are_a_table_or_say_what_is_wrong(raw: bytes, size: int) -> None:
    file = io.BytesIO(b"a,b\n" + raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_READ_BYTES", size)
        table = Table(file, "x.csv")
        records = list(islice(table.records(file, table.first), 100))
    assert b"".join(record.data for record in records if not record.wrong).count(b"\n") <= raw.count(b"\n") + 1
    for record in records:
        try:
            assert set(table.row(record)) == {"a", "b"}
        except ValueError as error:
            assert str(error)
