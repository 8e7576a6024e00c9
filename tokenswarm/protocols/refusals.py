"""Error envelopes of real servers, and the error class each belongs to.

Seen in the wild: `{"error": {"message", "type", "code"}}` (OpenAI, vLLM, llama.cpp, aimock), `{"error": "text"}`
(vLLM's 401, Xinference, Ollama), `{"detail": …}` (FastAPI), `{"object": "error", "message", "code": 40301}` (FastChat),
`{"text": …, "error_code": 50001}` (FastChat inside a stream), `{"type": "error", "error": {…}}` (Anthropic),
`{"type": "error", "message", "code"}` (OpenAI's responses), `{"error": "text", "error_type": "overloaded"}` (TGI),
`{"code": "Throttling", "message"}` (DashScope), and plain text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenswarm.errors import RequestError

_CONTENT_POLICY = (
    "content_filter",
    "content_policy",
    "content filtering policy",
    "responsibleai",
    "data_inspection_failed",
    "datainspectionfailed",
)
_NO_ERROR = ("none", "", "0", "200", "ok", "success")
"""What stands as a code where all went well."""


def error_class(status: int, text: str) -> str:
    """The class of an HTTP error status, told apart further by what the body says."""
    if status == 429:
        return "rate_limited"
    if 400 <= status < 500 and any(mark in text.lower() for mark in _CONTENT_POLICY):
        return "content_policy"
    return "http_5xx" if status >= 500 else "http_4xx"


def from_status(status: int, body: bytes) -> RequestError:
    """Why a server answered with an HTTP status of 400 and above, in its own words where it has any."""
    text = body.decode("utf-8", "replace").strip()
    try:
        message = message_of(msgspec.json.decode(body)) or text
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = text
    return RequestError(error_class(status, text), f"HTTP {status}: {message}" if message else f"HTTP {status}", status)


def from_stream(value: Any) -> RequestError | None:
    """The error that an object inside a successful response reports, or None if it reports none."""
    if not isinstance(value, dict):
        return None
    failed = value.get("error") or value.get("error_code") or "error" in (value.get("object"), value.get("type"))
    if not failed and not ("detail" in value and "choices" not in value):
        return None
    return reported(value)


def flat(value: Any) -> RequestError | None:
    """The error in an object that is nothing but a code and a message; None if it is no such object."""
    if not isinstance(value, dict) or str(value.get("code")).lower() in _NO_ERROR:
        return None
    return reported(value) if isinstance(value.get("message"), str) and value["message"] else None


def instead_of_reply(value: Any, otherwise: str) -> RequestError:
    """What came whole and is no reply: the error that it reports, in any of the envelopes; else `malformed`."""
    error = from_stream(value)
    said = value if isinstance(value, str) else ""
    if isinstance(value, dict):
        said = next((text for key in ("message", "msg") if isinstance(text := value.get(key), str) and text), "")
    if error is None and said.strip():
        error = reported(value)
    return error or RequestError("malformed", otherwise)


def reported(value: Any, otherwise: str = "an error without a message") -> RequestError:
    """What is known to be an error, inside a successful response; `otherwise` is its message where it has none."""
    policy = any(mark in str(value).lower() for mark in _CONTENT_POLICY)
    return RequestError("content_policy" if policy else "stream_error", message_of(value) or otherwise)


def message_of(value: Any) -> str:
    """The human-readable part of an error envelope; empty when there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(message_of, value)))
    if not isinstance(value, dict):
        return ""
    for key in ("error", "message", "detail", "msg", "text"):
        if value.get(key):
            text = message_of(value[key])
            if key == "error":  # what is in it names its own code
                code = value.get("error_type")
            else:
                code = value.get("code") or value.get("type") or value.get("error_code")
            return f"{text} ({code})" if text and code else text
    return ""
