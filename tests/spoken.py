"""How each protocol that the simulator speaks is asked and read, by the simplest means: no decoder of ours."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from simulator_process import Running

MESSAGES = [{"role": "user", "content": "How are you?"}]


@dataclass(frozen=True)
class Said:
    """What a stream said. `pieces` are the new texts, `ended` is whether its own end mark came, `error` its error."""

    pieces: list[str]
    thoughts: list[str]
    ended: bool
    usage: tuple[int, int] | None = None
    finish_reason: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Spoken:
    """One protocol: where and how it is asked for 8 tokens, and how what comes is read."""

    name: str
    path: str
    body: dict[str, Any]
    read: Callable[[bytes], Said]
    mark: bytes = b"\n\n"
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str | None = "text/event-stream; charset=utf-8"
    cut: str = "length"
    """The finish reason of a reply that the limit cut."""

    def ask(self, fault: str | None = None, **fields: Any) -> dict[str, Any]:
        """The body, with a fault and its fields if given."""
        faulty = {"simulator": {"fault": fault, **fields}} if fault else {}
        return self.body | {"ignore_eos": True} | faulty


def sse(body: bytes) -> list[dict[str, str]]:
    """The fields of each complete event; comments are under the empty name."""
    events = body.decode(errors="replace").split("\n\n")[:-1]
    return [
        {name: value.removeprefix(" ") for name, _, value in (line.partition(":") for line in event.split("\n"))}
        for event in events
    ]


def _data(body: bytes) -> list[Any]:
    return [json.loads(event["data"]) for event in sse(body) if event["data"] != "[DONE]"]


def _openai(part: Callable[[dict[str, Any]], tuple[str, str]]) -> Callable[[bytes], Said]:
    def read(body: bytes) -> Said:
        values = _data(body)
        error = next((each["error"]["message"] for each in values if "error" in each), None)
        choices = [each["choices"][0] for each in values if each.get("choices")]
        parts = [part(choice) for choice in choices]
        counts = [each["usage"] for each in values if "usage" in each]
        usage = (counts[0]["prompt_tokens"], counts[0]["completion_tokens"]) if counts else None
        reason = next((choice["finish_reason"] for choice in choices if choice["finish_reason"]), None)
        texts, thoughts = [text for text, _ in parts if text], [thought for _, thought in parts if thought]
        return Said(texts, thoughts, body.endswith(b"data: [DONE]\n\n"), usage, reason, error)

    return read


def _chat_part(choice: dict[str, Any]) -> tuple[str, str]:
    return choice["delta"].get("content", ""), choice["delta"].get("reasoning_content", "")


def _completion_part(choice: dict[str, Any]) -> tuple[str, str]:
    return choice["text"], ""


def _responses(body: bytes) -> Said:
    values = _data(body)
    assert [event["event"] for event in sse(body)] == [value["type"] for value in values]
    texts = [value["delta"] for value in values if value["type"] == "response.output_text.delta"]
    thoughts = [value["delta"] for value in values if value["type"] == "response.reasoning_text.delta"]
    if values and values[-1]["type"] == "error":
        return Said(texts, thoughts, False, error=values[-1]["message"])
    if not values or values[-1]["type"] not in ("response.completed", "response.incomplete"):
        return Said(texts, thoughts, False)
    response = values[-1]["response"]
    reason = (response["incomplete_details"] or {"reason": "completed"})["reason"]
    usage = (response["usage"]["input_tokens"], response["usage"]["output_tokens"])
    return Said(texts, thoughts, True, usage, reason)


def _ollama(part: Callable[[dict[str, Any]], dict[str, Any]], name: str) -> Callable[[bytes], Said]:
    def read(body: bytes) -> Said:
        values = [json.loads(line) for line in body.split(b"\n")[:-1]]
        error = values[-1].get("error") if values else None
        parts = [part(value) for value in values if "error" not in value]
        texts = [each[name] for each in parts if each[name]]
        thoughts = [each["thinking"] for each in parts if each.get("thinking")]
        last = values[-1] if values else {}
        usage = (last["prompt_eval_count"], last["eval_count"]) if "eval_count" in last else None
        return Said(texts, thoughts, last.get("done", False), usage, last.get("done_reason"), error)

    return read


def _fastchat(body: bytes) -> Said:
    values = [json.loads(frame) for frame in body.split(b"\0")[:-1]]
    if values and values[-1]["error_code"]:
        return Said(_new([value["text"] for value in values[:-1]]), [], False, error=values[-1]["text"])
    last = values[-1] if values else {"finish_reason": None, "usage": None}
    usage = last["usage"] and (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"])
    reason = last["finish_reason"]
    return Said(_new([value["text"] for value in values]), [], reason is not None, usage, reason)


def _new(texts: list[str]) -> list[str]:
    """The new part of each text so far."""
    pieces = []
    before = ""
    for text in texts:
        assert text.startswith(before)
        pieces.append(text.removeprefix(before))
        before = text
    return [piece for piece in pieces if piece]


def _dashscope(cumulative: bool) -> Callable[[bytes], Said]:
    def read(body: bytes) -> Said:
        events = sse(body)
        assert [event["id"] for event in events] == [str(number + 1) for number in range(len(events))]
        values = [json.loads(event["data"]) for event in events if event["event"] == "result"]
        error = json.loads(events[-1]["data"])["message"] if events and events[-1]["event"] == "error" else None
        choices = [value["output"]["choices"][0] for value in values]
        texts = [choice["message"]["content"] for choice in choices]
        thoughts = [choice["message"].get("reasoning_content", "") for choice in choices]
        reason = choices[-1]["finish_reason"] if choices else "null"
        usage = values[-1]["usage"] if values else None
        return Said(
            _new(texts) if cumulative else list(filter(None, texts)),
            _new(thoughts) if cumulative else list(filter(None, thoughts)),
            reason != "null",
            usage and (usage["input_tokens"], usage["output_tokens"]),
            None if reason == "null" else reason,
            error,
        )

    return read


def _anthropic(body: bytes) -> Said:
    values = _data(body)
    assert [event["event"] for event in sse(body)] == [value["type"] for value in values]
    deltas = [value["delta"] for value in values if value["type"] == "content_block_delta"]
    texts = [delta["text"] for delta in deltas if delta["type"] == "text_delta"]
    thoughts = [delta["thinking"] for delta in deltas if delta["type"] == "thinking_delta"]
    error = next((value["error"]["message"] for value in values if value["type"] == "error"), None)
    said = next((value for value in values if value["type"] == "message_delta"), None)
    ended = bool(values) and values[-1]["type"] == "message_stop"
    if said is None:
        return Said(texts, thoughts, ended, error=error)
    usage = (values[0]["message"]["usage"]["input_tokens"], said["usage"]["output_tokens"])
    return Said(texts, thoughts, ended, usage, said["delta"]["stop_reason"], error)


def _tgi(body: bytes) -> Said:
    values = _data(body)
    error = values[-1]["error"] if values and "error" in values[-1] else None
    values = [value for value in values if "error" not in value]
    texts = [value["token"]["text"] for value in values if not value["token"]["special"]]
    if not values or values[-1]["generated_text"] is None:
        return Said(texts, [], False, error=error)
    assert values[-1]["generated_text"] == "".join(texts)
    details = values[-1]["details"]
    usage = (details["input_length"], details["generated_tokens"])
    return Said(texts, [], True, usage, details["finish_reason"], error)


_STREAM = {"model": "simulator", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 8}
_GENERATION = {"model": "simulator", "input": {"messages": MESSAGES}}
_DASHSCOPE_PATH = "/api/v1/services/aigc/text-generation/generation"
_SSE = {"X-DashScope-SSE": "enable"}

STREAMED = (
    Spoken("openai-chat", "/v1/chat/completions", _STREAM | {"messages": MESSAGES}, _openai(_chat_part)),
    Spoken("openai-completions", "/v1/completions", _STREAM | {"prompt": "How are you?"}, _openai(_completion_part)),
    Spoken(
        "openai-responses",
        "/v1/responses",
        {"model": "simulator", "input": "How are you?", "stream": True, "max_output_tokens": 8},
        _responses,
        cut="max_output_tokens",
    ),
    Spoken(
        "ollama-chat",
        "/api/chat",
        {"model": "simulator", "messages": MESSAGES, "options": {"num_predict": 8}},
        _ollama(lambda value: value["message"], "content"),
        b"\n",
        content_type="application/x-ndjson",
    ),
    Spoken(
        "ollama-generate",
        "/api/generate",
        {"model": "simulator", "prompt": "How are you?", "options": {"num_predict": 8}},
        _ollama(lambda value: value, "response"),
        b"\n",
        content_type="application/x-ndjson",
    ),
    Spoken(
        "fastchat-worker",
        "/worker_generate_stream",
        {"model": "simulator", "prompt": "How are you?", "max_new_tokens": 8, "echo": False},
        _fastchat,
        b"\0",
        content_type=None,
    ),
    Spoken(
        "dashscope",
        _DASHSCOPE_PATH,
        _GENERATION | {"parameters": {"result_format": "message", "incremental_output": True, "max_tokens": 8}},
        _dashscope(cumulative=False),
        headers=_SSE,
    ),
    Spoken(
        "dashscope-cumulative",
        _DASHSCOPE_PATH,
        _GENERATION | {"parameters": {"result_format": "message", "max_tokens": 8}},
        _dashscope(cumulative=True),
        headers=_SSE,
    ),
    Spoken(
        "anthropic",
        "/v1/messages",
        {"model": "simulator", "messages": MESSAGES, "max_tokens": 8, "stream": True},
        _anthropic,
        cut="max_tokens",
    ),
    Spoken(
        "tgi",
        "/generate_stream",
        {"inputs": "How are you?", "parameters": {"max_new_tokens": 8, "details": True}},
        _tgi,
    ),
)

SPEAKERS = pytest.mark.parametrize("spoken", STREAMED, ids=lambda spoken: spoken.name)
"""For tests of every protocol that streams."""


def ask(
    server: Running, spoken: Spoken, fault: str | None = None, name: str = "", **fields: Any
) -> http.client.HTTPResponse:
    """Send the request, under a name for the log that is made of protocol and fault if none is given."""
    headers = spoken.headers | {"X-Request-Id": name or f"{spoken.name}-{fault}"}
    return server.post(spoken.ask(fault, **fields), headers, spoken.path)
