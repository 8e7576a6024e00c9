"""The wire protocols by the name that `--protocol` takes."""

from __future__ import annotations

from collections.abc import Mapping

from tokenswarm.protocols.base import WireProtocol
from tokenswarm.protocols.chatglm import ChatGLM
from tokenswarm.protocols.custom import Custom
from tokenswarm.protocols.fastchat_worker import FastChatWorker
from tokenswarm.protocols.ollama import OllamaChat, OllamaGenerate
from tokenswarm.protocols.openai_chat import OpenAIChat

_ALL: tuple[WireProtocol, ...] = (
    OpenAIChat(),
    ChatGLM(),
    Custom(),
    FastChatWorker(),
    OllamaChat(),
    OllamaGenerate(),
)
PROTOCOLS: Mapping[str, WireProtocol] = {protocol.name: protocol for protocol in _ALL}
"""Every protocol that can be asked for."""
