"""The protocols that the simulator speaks, one module each; `base.py` says what one has to do."""

from __future__ import annotations

from typing import Any

from tokenswarm.simulator.dialects.anthropic import Anthropic
from tokenswarm.simulator.dialects.base import Dialect
from tokenswarm.simulator.dialects.chatglm import ChatGlm
from tokenswarm.simulator.dialects.dashscope import DashScope
from tokenswarm.simulator.dialects.fastchat import WorkerGenerate, WorkerGenerateStream
from tokenswarm.simulator.dialects.ollama import OllamaChat, OllamaGenerate
from tokenswarm.simulator.dialects.openai_chat import OpenAIChat
from tokenswarm.simulator.dialects.openai_completions import OpenAICompletions
from tokenswarm.simulator.dialects.openai_embeddings import OpenAIEmbeddings
from tokenswarm.simulator.dialects.openai_responses import OpenAIResponses
from tokenswarm.simulator.dialects.tgi import Generate, GenerateStream

DIALECTS: tuple[Dialect[Any], ...] = (
    OpenAIChat(),
    OpenAICompletions(),
    OpenAIEmbeddings(),
    OpenAIResponses(),
    OllamaChat(),
    OllamaGenerate(),
    WorkerGenerateStream(),
    WorkerGenerate(),
    DashScope(),
    Anthropic(),
    GenerateStream(),
    Generate(),
    ChatGlm(),
)
