"""What the requests of most protocols have in common: sampling by the protocol's own names, a JSON body, a POST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tokenswarm.protocols.base import Decoder, Generation, WireRequest
from tokenswarm.protocols.values import merged


def sampling(
    generation: Generation, max_tokens: str = "max_tokens", temperature: str = "temperature", top_p: str = "top_p"
) -> dict[str, Any]:
    """What is asked of the model, by the names that the protocol has for it; what is not asked is left out."""
    asked = {max_tokens: generation.max_tokens, temperature: generation.temperature, top_p: generation.top_p}
    return {name: value for name, value in asked.items() if value is not None}


def post(
    path: str,
    body: dict[str, Any],
    generation: Generation,
    headers: tuple[tuple[str, str], ...] = (),
    decoder: Callable[[], Decoder] | None = None,
) -> WireRequest:
    """The request with this body and what the user wants in it besides. Raises TypeError on what is no JSON."""
    data = msgspec.json.encode(merged(body, generation.extra_body))
    accept = "text/event-stream" if generation.stream else "application/json"
    return WireRequest(path, data, accept, headers=headers, decoder=decoder)
