"""The wire protocols by the name that `--protocol` takes."""

from __future__ import annotations

from collections.abc import Mapping

from tokenswarm.protocols.anthropic import Anthropic
from tokenswarm.protocols.base import WireProtocol
from tokenswarm.protocols.chatglm import ChatGLM
from tokenswarm.protocols.custom import Custom
from tokenswarm.protocols.dashscope import DashScope
from tokenswarm.protocols.fastchat_worker import FastChatWorker
from tokenswarm.protocols.ollama import OllamaChat, OllamaGenerate
from tokenswarm.protocols.openai_chat import OpenAIChat
from tokenswarm.protocols.openai_completions import OpenAICompletions
from tokenswarm.protocols.openai_embeddings import OpenAIEmbeddings
from tokenswarm.protocols.openai_responses import OpenAIResponses
from tokenswarm.protocols.tgi import Tgi
from tokenswarm.protocols.websocket_chat import WebSocketChat

_ALL: tuple[WireProtocol, ...] = (
    OpenAIChat(),
    Anthropic(),
    ChatGLM(),
    Custom(),
    DashScope(),
    FastChatWorker(),
    OllamaChat(),
    OllamaGenerate(),
    OpenAICompletions(),
    OpenAIEmbeddings(),
    OpenAIResponses(),
    Tgi(),
    WebSocketChat(),
)
PROTOCOLS: Mapping[str, WireProtocol] = {protocol.name: protocol for protocol in _ALL}
"""Every protocol that can be asked for."""
