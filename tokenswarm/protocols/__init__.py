"""The wire protocols by the name that `--protocol` takes."""

from __future__ import annotations

from collections.abc import Mapping

from tokenswarm.protocols.anthropic import Anthropic
from tokenswarm.protocols.base import WireProtocol
from tokenswarm.protocols.dashscope import DashScope
from tokenswarm.protocols.openai_chat import OpenAIChat
from tokenswarm.protocols.openai_completions import OpenAICompletions
from tokenswarm.protocols.openai_embeddings import OpenAIEmbeddings
from tokenswarm.protocols.openai_responses import OpenAIResponses
from tokenswarm.protocols.tgi import Tgi

PROTOCOLS: Mapping[str, WireProtocol] = {
    protocol.name: protocol
    for protocol in (
        OpenAIChat(),
        Anthropic(),
        DashScope(),
        OpenAICompletions(),
        OpenAIEmbeddings(),
        OpenAIResponses(),
        Tgi(),
    )
}
"""Every protocol that can be asked for."""
