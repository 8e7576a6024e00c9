"""Texts of exactly so many tokens, by every kind of tokenizer; and what is said where there is none."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers_made import KINDS, tokenizer_json

from tokenswarm.errors import OptionError, WritingError
from tokenswarm.workload.tokenizer import Estimate, LocalTokenizer, load
from tokenswarm.workload.writing import Writer


@pytest.fixture(scope="module", params=list(KINDS))
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_json(request.param, tmp_path_factory.mktemp(request.param))


def counted(file: Path, text: str) -> int:
    """By the library itself, which is not asked through our code here."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_text_has_exactly_the_tokens_asked_for(file: Path) -> None:
    writer = Writer(load(str(file)))
    source = random.Random("exactly")
    for tokens in (*range(1, 40), 64, 127, 128, 500, 1000, 4001):
        assert counted(file, writer.text(tokens, source)) == tokens


def test_the_start_counts_and_stays_where_it_is(file: Path) -> None:
    writer = Writer(load(str(file)))
    source = random.Random("start")
    for tokens in (60, 61, 200):
        text = writer.text(tokens, source, start="3f9a02c4d5e6b718")
        assert text.startswith("3f9a02c4d5e6b718 ")
        assert counted(file, text) == tokens


def test_texts_are_varied(file: Path) -> None:
    writer = Writer(load(str(file)))
    source = random.Random("varied")
    texts = [writer.text(300, source) for _ in range(50)]
    assert len({text[:20] for text in texts}) > 45, "no two begin alike"
    assert len(set(texts[0].split())) > 0.7 * len(texts[0].split())


def test_the_same_seed_writes_the_same(file: Path) -> None:
    writer = Writer(load(str(file)))
    assert writer.text(90, random.Random("a")) == writer.text(90, random.Random("a"))


def test_a_start_that_is_too_long_is_said() -> None:
    class Words(Estimate):
        exact = True

        def count(self, text: str) -> int:
            return len(text.split())

    writer = Writer(Words())
    assert writer.text(2, random.Random(0), start="one two") == "one two"
    with pytest.raises(WritingError, match=r"exactly 2 tokens .* begins with 'one two three'; ask for more"):
        writer.text(2, random.Random(0), start="one two three")


def test_without_a_tokenizer_four_characters_are_a_token() -> None:
    writer, source = Writer(Estimate()), random.Random("estimate")
    for tokens in (1, 2, 3, 17, 512, 4000):
        text = writer.text(tokens, source)
        assert len(text) == 4 * tokens == len(text.strip())
    assert writer.text(20, source, start="0123456789abcdef").startswith("0123456789abcdef ")
    with pytest.raises(WritingError, match=r"3 tokens are too few .* begins with '0123456789abcdef'"):
        writer.text(3, source, start="0123456789abcdef")
    assert Estimate().counts(["abcd", "abcde", "", "四个汉字"]) == [1, 2, 0, 3]


def test_a_tokenizer_that_makes_nothing_of_words_is_refused(tmp_path: Path) -> None:
    made = Tokenizer(models.BPE(vocab={"天": 0}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(WritingError, match="makes no tokens of English words"):
        Writer(load(str(tmp_path)))


def test_the_directory_of_a_model_will_do(tmp_path: Path) -> None:
    tokenizer_json("letters", tmp_path)
    assert load(str(tmp_path)).count("abc") == 3


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tokenizer_json("letters", tmp_path)
    assert load(str(path)).count("What") == 4
    tokenizer_json("byte_level_bpe", tmp_path)
    assert load(str(path)).count("What") == 2


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "there is no "), ("{}", "not a tokenizer.json of Hugging Face's: "), ("PK\x03", "not a tokenizer.json")],
)
def test_what_is_no_tokenizer_is_said(tmp_path: Path, content: str | None, complaint: str) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(OptionError, match=r"^--tokenizer ") as caught:
        load(str(path))
    assert complaint in str(caught.value)


def test_without_the_package_it_says_what_to_install(tmp_path: Path) -> None:
    path = tokenizer_json("letters", tmp_path)
    code = (
        "import sys; sys.modules['tokenizers'] = None\n"
        f"from tokenswarm.workload.tokenizer import load\nload({str(path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "--tokenizer needs the package tokenizers, which is not installed: pip install" in done.stderr


def test_what_a_tokenizer_adds_or_cuts_by_itself_is_not_counted(tmp_path: Path) -> None:
    for kind in ("split_bpe", "word_piece"):
        tokenizer = LocalTokenizer(tokenizer_json(kind, tmp_path).read_bytes())
        assert tokenizer.count("What is rain?" * 100) > 300
        assert tokenizer.count("") == 0
