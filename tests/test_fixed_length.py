"""Replies of exactly the asked length: which protocols can ask for them, and how."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenswarm.protocols import PROTOCOLS
from tokenswarm.protocols.base import Generation, Message

ABLE = ("openai-chat", "openai-completions")
MESSAGES: list[Message] = [{"role": "user", "content": "hello"}]


def body(name: str, **settings: Any) -> str:
    return PROTOCOLS[name].encode(MESSAGES, Generation(model="m", **settings)).body.decode()


@pytest.mark.parametrize("name", ABLE)
def test_the_length_is_asked_for_from_below_as_well(name: str) -> None:
    asked = json.loads(body(name, max_tokens=7, ignore_eos=True))
    assert (asked["max_tokens"], asked["min_tokens"], asked["ignore_eos"]) == (7, 7, True)


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize("settings", [{"max_tokens": 7}, {"ignore_eos": True}, {}])
def test_without_a_length_or_unasked_nothing_of_it_is_sent(name: str, settings: dict[str, Any]) -> None:
    """A reply that never ends by itself and has no limit would go on to the end of the context."""
    assert not {"min_tokens", "ignore_eos"} & json.loads(body(name, **settings)).keys()


def test_only_these_protocols_say_that_they_can() -> None:
    assert tuple(name for name, protocol in PROTOCOLS.items() if protocol.ignores_eos) == ABLE
    for name in PROTOCOLS.keys() - {*ABLE}:
        assert "eos" not in body(name, max_tokens=7, ignore_eos=True)
