"""What each request will get: how long a reply, which stretch of the tape, which fault."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from tokenswarm.simulator.faults import Fault, FaultRate, draw
from tokenswarm.simulator.request import ApiError, Request
from tokenswarm.simulator.text import Tape

LENGTH_VARIATION = 0.5
"""Coefficient of variation of the lengths at which replies end by themselves."""


@dataclass(frozen=True, slots=True)
class Style:
    """How replies are made and sent; the same for all of a server's requests. Counts are tokens, rates are 0 to 1."""

    output_tokens: int = 200
    reasoning: int = 0
    empty_chunks: float = 0.0
    cut_writes: bool = False
    max_model_len: int = 131_072
    faults: tuple[FaultRate, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request will get: `length` tokens of the tape from `start` on, the first `reasoning` as reasoning."""

    input_tokens: int
    start: int
    length: int
    reasoning: int
    finish_reason: str
    fault: Fault
    random: random.Random


def plan_reply(request: Request, style: Style, tape: Tape, seed: int, number: int) -> Plan:
    """The reply of request `number`. If the request has a seed of its own, its prompt decides instead of the number.

    Raises ApiError 400 when prompt and asked output do not fit the context.
    """
    texts = request.texts()
    input_tokens = request.input_tokens()
    room = style.max_model_len - input_tokens
    asked = request.limit()
    limit = room if asked is None else asked
    if limit > room or room < 1:
        raise ApiError(
            400,
            f"The model's context is {style.max_model_len} tokens; the prompt has {input_tokens} "
            f"and {max(limit, 1)} were asked for.",
            param="messages",
            code="context_length_exceeded",
        )
    own_seed = request.own_seed()
    key = f"{seed}:{number}" if own_seed is None else f"{seed}:{own_seed}:{texts}"
    source = random.Random(key)
    start = source.choice(tape.starts)
    sigma = math.sqrt(math.log(1.0 + LENGTH_VARIATION**2))
    natural = max(1, round(style.output_tokens * source.lognormvariate(-(sigma**2) / 2, sigma)))
    if request.ignore_eos:
        natural = limit + 1
    drawn = draw(style.faults, source)
    length = min(natural, limit) if request.generates() else 0
    return Plan(
        input_tokens=input_tokens,
        start=start,
        length=length,
        reasoning=min(style.reasoning, length) if request.reasons() else 0,
        finish_reason="stop" if natural <= limit else "length",
        fault=request.simulator or drawn,
        random=source,
    )
