"""What only aimock does on demand: think before it answers, and break off."""

from __future__ import annotations

import pytest
from caller import Caller, outcome

from conformance.server import Running, Server
from conformance.servers.aimock import CUT, TEXT, THINKING, THOUGHT
from tokenswarm.protocols import PROTOCOLS

pytestmark = [pytest.mark.servers, pytest.mark.only("aimock")]


def caller(server: Server, running: Running, protocol: str, model: str) -> Caller:
    wire = PROTOCOLS[protocol]
    return Caller(running.url, protocol=wire, headers=wire.credentials(server.key or ""), model=model, max_tokens=99)


@pytest.mark.parametrize("protocol", ["openai-chat", "openai-responses", "anthropic"])
def test_thinking_is_output_but_not_the_answer(server: Server, running: Running, protocol: str) -> None:
    one = caller(server, running, protocol, THINKING)
    call = one.call()
    one.close()
    assert outcome(call) == (TEXT, None)
    assert "".join(call.exchange.reasoning) == THOUGHT
    assert call.timeline.first_answer is not None
    assert call.timeline.first_answer > call.timeline.at[0]


@pytest.mark.parametrize("protocol", ["openai-chat", "openai-responses", "anthropic", "ollama-chat", "ollama-generate"])
def test_a_stream_that_breaks_off_is_truncated(server: Server, running: Running, protocol: str) -> None:
    one = caller(server, running, protocol, CUT)
    text, error_class = outcome(one.call())
    one.close()
    assert error_class == "truncated"
    assert text and text != TEXT and TEXT.startswith(text)
