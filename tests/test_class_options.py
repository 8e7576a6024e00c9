"""Options of one user class: read as the command line is, over what that says, and refused in the class's name."""

from __future__ import annotations

from typing import Any

import pytest

from tokenswarm.errors import OptionError
from tokenswarm.options import parse
from tokenswarm.options.classes import own_options, parse_classes


class Plain:
    pass


def made(given: Any, name: str = "Rag") -> type:
    return type(name, (), {"options": given})


def test_a_class_without_options_has_those_of_the_run() -> None:
    assert parse_classes([Plain, made({})], {}, {}) == {}


def test_a_class_has_what_it_says_and_else_what_the_command_line_says() -> None:
    command = {"output_tokens": "50", "temperature": "0.5", "seed": "7", "label": "mine"}
    rag = made({"output_tokens": "uniform:64-256", "input_tokens": 4000, "ignore_eos": True})
    found = parse_classes([Plain, rag], command, {})["Rag"]
    same = {**command, "output_tokens": "uniform:64-256", "input_tokens": "4000", "ignore_eos": True}
    assert found == parse(same, {})


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_class_can_unset_what_the_command_line_says(nothing: Any) -> None:
    found = parse_classes([made({"output_tokens": nothing})], {"output_tokens": "50"}, {})
    assert found["Rag"].output_tokens is None


def test_what_is_kept_of_them_is_text_and_truth_values() -> None:
    given = {"output_tokens": 64, "temperature": 0.5, "ignore_eos": True, "dataset": None}
    kept = {"output_tokens": "64", "temperature": "0.5", "ignore_eos": True, "dataset": ""}
    assert own_options(made(given)) == kept


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"output_tokens": "many"}, "Rag.options: --output-tokens 'many': 'many' is not a whole number of tokens"),
        ({"dataset": "/nowhere.jsonl"}, "Rag.options: --dataset '/nowhere.jsonl': no such file"),
        ({"host": "http://x"}, "Rag.options has 'host', which is no option; a class may have dataset,"),
        ({"label": "x"}, "Rag.options has 'label', which is for the whole run and not for one class; a class may have"),
        ({"seed": 3}, "Rag.options has 'seed', which is for the whole run and not for one class"),
        ({"output-tokens": 3}, "Rag.options has 'output-tokens', which is written 'output_tokens' there"),
        ({"ignore_eos": "yes"}, "Rag.options: ignore_eos is a switch; write True or False"),
        (["output_tokens"], "Rag.options is no dictionary"),
        ({"prefix_pool": 4}, "Rag.options: --prefix-pool needs --shared-prefix-tokens"),
    ],
)
def test_what_is_wrong_is_said_in_the_name_of_the_class(given: Any, complaint: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_classes([made(given)], {"label": "", "seed": "0"}, {})
    assert complaint in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    classes = [made({"top_p": "x", "nonsense": 1}), made({"temperature": "x"}, "Chat")]
    with pytest.raises(OptionError) as caught:
        parse_classes(classes, {}, {})
    lines = str(caught.value).splitlines()
    assert [line.split(".")[0] for line in lines] == ["Rag", "Chat"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"dataset": __file__, "input_tokens": "5"}, "--dataset and --input-tokens contradict each other"),
        ({"dataset_once": True, "input_tokens": "5"}, "there is no end to prompts that --input-tokens makes up"),
        ({"shared_prefix_tokens": "5", "unique_prompts": True}, "--unique-prompts contradict each other"),
        ({"shared_prefix_tokens": "5", "system_prompt": "x"}, "are both the system message"),
        ({"prefix_pool": "20:80%"}, "--prefix-pool needs --shared-prefix-tokens"),
        ({"shared_prefix_tokens": "5", "prefix_pool": "20:101%"}, "write how many prefixes there are"),
        ({"shared_prefix_tokens": "5", "prefix_pool": "0"}, "write how many prefixes there are"),
        ({"tokenizer": "/nowhere"}, "there is no /nowhere; it wants a model's tokenizer.json"),
        (
            {"ignore_eos": True, "protocol": "anthropic"},
            "--ignore-eos: --protocol anthropic has no such setting; these have: openai-chat, openai-completions",
        ),
        ({"output_tokens": "5", "extra_body": '{"max_tokens": 5}'}, "ask for two different things"),
    ],
)
def test_options_that_contradict_each_other(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(given, {})
    assert complaint in str(caught.value)


@pytest.mark.parametrize(("given", "share"), [("20", 1.0), ("20:80%", 0.8), ("20:0.8", 0.8), ("20:0 %", 0.0)])
def test_a_pool_may_be_written_with_a_share(given: str, share: float) -> None:
    pool = parse({"shared_prefix_tokens": "5", "prefix_pool": given}, {}).prefix_pool
    assert (pool.count, pool.share) == (20, share)
