"""The bundled questions are varied, and a prompt source asks them in an order that only the seed and worker decide."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from itertools import islice
from pathlib import Path

import msgspec
import pytest

import tokenswarm
from tokenswarm.errors import TokenswarmError
from tokenswarm.workload.prompts import (
    Prompt,
    PromptSource,
    Question,
    bundled_prompts,
    bundled_questions,
    parse_questions,
)

QUESTIONS = bundled_questions()
PROMPTS = bundled_prompts()
TEXTS = [question.prompt for question in QUESTIONS]
GOOD_LINE = b'{"id": "q001", "language": "en", "topic": "maths", "prompt": "Is 2027 a prime number?"}'

SHORT, MEDIUM, LONG, VERY_LONG = "short", "medium", "long", "very long"


def length_class(question: Question) -> str:
    """A Chinese character says about as much as two or three letters, so the limits are closer for Chinese."""
    short, medium, long = (60, 600, 2000) if question.language == "en" else (25, 250, 900)
    length = len(question.prompt)
    return SHORT if length < short else MEDIUM if length < medium else LONG if length <= long else VERY_LONG


def stream(count: int, *, seed: int = 0, worker: int = 0, prompts: list[Prompt] = PROMPTS) -> list[str]:
    source = PromptSource(prompts, seed=seed, worker=worker)
    return [source.next().id for _ in range(count)]


def test_there_are_at_least_240_questions() -> None:
    assert len(QUESTIONS) >= 240


def test_ids_count_up_in_file_order() -> None:
    assert [question.id for question in QUESTIONS] == [f"q{n:03d}" for n in range(1, len(QUESTIONS) + 1)]


def test_half_of_the_questions_are_english_and_half_chinese() -> None:
    count = Counter(question.language for question in QUESTIONS)
    assert abs(count["en"] - count["zh"]) <= 0.05 * len(QUESTIONS)


def test_the_language_is_the_one_the_question_is_written_in() -> None:
    for question in QUESTIONS:
        assert bool(re.search(r"[\u4e00-\u9fff]", question.prompt)) == (question.language == "zh"), question.id


@pytest.mark.parametrize("language", ["en", "zh"])
def test_lengths_are_spread_from_a_few_words_to_whole_documents(language: str) -> None:
    of_language = [question for question in QUESTIONS if question.language == language]
    share = {key: n / len(of_language) for key, n in Counter(map(length_class, of_language)).items()}
    assert share[SHORT] == pytest.approx(0.40, abs=0.05)
    assert share[MEDIUM] == pytest.approx(0.40, abs=0.05)
    assert share[LONG] == pytest.approx(0.15, abs=0.03)
    assert share[VERY_LONG] == pytest.approx(0.05, abs=0.02)


def test_very_long_prompts_have_2500_to_6000_characters() -> None:
    lengths = [len(question.prompt) for question in QUESTIONS if length_class(question) == VERY_LONG]
    assert 2500 <= min(lengths) <= max(lengths) <= 6000


def test_topics_are_many_and_none_prevails() -> None:
    count = Counter(question.topic for question in QUESTIONS)
    assert len(count) >= 20
    assert max(count.values()) <= 0.1 * len(QUESTIONS)


def test_no_question_is_there_twice() -> None:
    assert len({" ".join(text.lower().split()) for text in TEXTS}) == len(TEXTS)


def test_beginnings_differ_so_that_a_prefix_cache_gains_nothing() -> None:
    assert len({text[:24] for text in TEXTS}) >= 0.98 * len(TEXTS)


def test_addresses_in_the_texts_are_reserved_for_examples() -> None:
    for text in TEXTS:
        assert set(re.findall(r"[\w.-]+@([\w.-]+)", text)) <= {"example.com"}


def test_bundled_prompts_are_one_user_message_each_and_encode_as_json() -> None:
    for question, prompt in zip(QUESTIONS, PROMPTS, strict=True):
        encoded = msgspec.json.encode(prompt.messages)
        assert json.loads(encoded) == [{"role": "user", "content": question.prompt}]


def test_the_questions_are_found_in_a_zip(tmp_path: Path) -> None:
    package = Path(tokenswarm.__file__).parent
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for path in package.rglob("*"):
            if path.suffix in {".py", ".jsonl"}:
                bundle.write(path, path.relative_to(package.parent))
    code = "import tokenswarm.workload.prompts as p; print(p.__file__, len(p.bundled_questions()))"
    environment = os.environ | {"PYTHONPATH": str(archive)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    where, count = done.stdout.split()
    assert where.startswith(str(archive))
    assert int(count) == len(QUESTIONS)


def test_the_same_seed_and_worker_give_the_same_stream() -> None:
    assert stream(600, seed=7, worker=3) == stream(600, seed=7, worker=3)


def test_the_stream_is_the_same_in_every_process_and_release() -> None:
    prompts = [Prompt(letter, ({"role": "user", "content": letter},)) for letter in "abcdefgh"]
    assert "".join(stream(16, seed=1, worker=2, prompts=prompts)) == "cdebhfaghagdfecb"


def test_every_worker_and_every_seed_has_its_own_stream() -> None:
    pairs = [(seed, worker) for seed in (0, 1, 2, 11, -1) for worker in (0, 1, 2, 11)]
    assert len({tuple(stream(20, seed=seed, worker=worker)) for seed, worker in pairs}) == len(pairs)


def test_nothing_repeats_until_everything_was_used() -> None:
    source = PromptSource(PROMPTS, seed=5, worker=0)
    everything = {prompt.id for prompt in PROMPTS}
    for _ in range(4):
        assert {source.next().id for _ in PROMPTS} == everything


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_workers_deal_out_together_what_one_alone_would_ask(workers: int) -> None:
    sources = [PromptSource(PROMPTS, seed=5, worker=worker, workers=workers) for worker in range(workers)]
    alone = stream(len(PROMPTS) * workers, seed=5)
    assert [sources[n % workers].next().id for n in range(len(PROMPTS) * workers)] == alone


def test_fewer_prompts_than_workers_still_reach_every_worker() -> None:
    sources = [PromptSource(PROMPTS[:2], seed=5, worker=worker, workers=3) for worker in range(3)]
    assert all(source.next() for source in sources for _ in range(4))


def test_a_worker_that_came_later_asks_everything_in_an_order_of_its_own() -> None:
    late = PromptSource(PROMPTS, seed=5, worker=3, workers=3)
    order = [late.next().id for _ in PROMPTS]
    assert set(order) == {prompt.id for prompt in PROMPTS}
    assert order != stream(len(PROMPTS), seed=5)


def test_each_round_has_another_order() -> None:
    ids = iter(stream(3 * len(PROMPTS)))
    rounds = {tuple(islice(ids, len(PROMPTS))) for _ in range(3)}
    assert len(rounds) == 3


def test_the_caller_keeps_its_prompts_in_their_order() -> None:
    before = list(PROMPTS)
    stream(10)
    assert before == PROMPTS


def test_a_system_prompt_comes_first_in_every_prompt() -> None:
    source = PromptSource(PROMPTS, seed=0, worker=0, system_prompt="Answer in one sentence.")
    plain = PromptSource(PROMPTS, seed=0, worker=0)
    for _ in range(10):
        system, *rest = source.next().messages
        assert system == {"role": "system", "content": "Answer in one sentence."}
        assert tuple(rest) == plain.next().messages


def test_one_prompt_is_enough_and_none_is_an_error() -> None:
    assert stream(3, prompts=PROMPTS[:1]) == [PROMPTS[0].id] * 3
    with pytest.raises(TokenswarmError, match="no prompts"):
        PromptSource([], seed=0, worker=0)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{not json", "malformed"),
        (b'{"id": "q002", "language": "en", "topic": "maths"}', "prompt"),
        (b'{"id": "q002", "language": "fr", "topic": "maths", "prompt": "Combien ?"}', "language"),
        (b'{"id": "q002", "language": "en", "topic": "maths", "prompt": "  "}', "prompt"),
        (b'{"id": "q002", "language": "en", "topic": "maths", "prompt": "Why?", "answer": 42}', "answer"),
        (b'{"id": "q002", "language": "en", "topic": "maths", "prompt": "\xff"}', "not a question"),
        (GOOD_LINE, "'q001' is already on line 1"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(line: bytes, complaint: str) -> None:
    with pytest.raises(TokenswarmError, match=rf"^mine\.jsonl, line 3: .*{complaint}"):
        parse_questions([GOOD_LINE, b"", line], "mine.jsonl")
