"""One request, one row: the columns of `requests.csv`, their meaning and their text form.

Not here: how instants are measured (`timing.py`) and who writes the file (`recording/`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Final

import msgspec

from tokenswarm.timing import Anchor, Timeline, percentile

OK: Final = "ok"
FAILED: Final = "failed"
TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
INCOMPLETE: Final = "incomplete"
SHED: Final = "shed"
STATUSES: Final = (OK, FAILED, TIMEOUT, CANCELLED, INCOMPLETE, SHED)

ERROR_CLASSES: Final = (
    "connect",
    "tls",
    "dns",
    "http_4xx",
    "rate_limited",
    "http_5xx",
    "connect_timeout",
    "first_token_timeout",
    "stall_timeout",
    "total_timeout",
    "truncated",
    "stream_error",
    "malformed",
    "empty",
    "content_policy",
    "client",
)
TIMEOUT_CLASSES: Final = frozenset(name for name in ERROR_CLASSES if name.endswith("_timeout"))

ERROR_LENGTH: Final = 300


class RequestRecord(msgspec.Struct, kw_only=True):
    """A finished request, as its row says it. Durations are milliseconds, `*_time` are UTC epoch seconds.

    None means "not measured" or "does not apply" and is an empty cell, never 0. Instants are defined in
    `timing.Timeline`. The order of the fields is the order of the columns.
    """

    id: str
    """Sent to the server as `X-Request-Id`."""
    worker: int = 0
    user_class: str = ""
    name: str = ""
    """The task's name, or the path of the request."""
    protocol: str = ""
    model: str = ""
    conversation: str | None = None
    parent: str | None = None
    turn: int | None = None
    step: int | None = None
    """The load step in which the request was due."""

    status: str = INCOMPLETE
    error_class: str | None = None
    error: str | None = None
    http_status: int | None = None
    finish_reason: str | None = None

    start_time: float | None = None
    intended_time: float | None = None
    first_token_time: float | None = None
    end_time: float | None = None

    ttft_ms: float | None = None
    """First token − start."""
    ttft_sent_ms: float | None = None
    """First token − sent: the server's own share."""
    ttft_due_ms: float | None = None
    """First token − intended."""
    ttft_low_ms: float | None = None
    """Lower bound of `ttft_ms`; equal to it unless chunks were merged while the client was late."""
    ttfo_ms: float | None = None
    """First visible text (not reasoning) − start."""
    ttst_ms: float | None = None
    """Second output chunk − first."""
    tpot_ms: float | None = None
    """(last token − first token) / (streamed tokens − tokens of the first chunk)."""
    itl_mean_ms: float | None = None
    itl_p50_ms: float | None = None
    itl_p99_ms: float | None = None
    itl_max_ms: float | None = None
    tokens_per_chunk: float | None = None
    chunks: int = 0
    """Output-bearing chunks."""
    first_read_chunks: int | None = None
    """Output chunks in the read that brought the first token."""
    max_read_chunks: int | None = None
    e2e_ms: float | None = None
    """End − start."""
    last_token_ms: float | None = None
    """Last token − start."""

    queue_ms: float | None = None
    """Start − intended."""
    pool_ms: float | None = None
    """Start → sent, less what the next four columns name: waiting for a connection, and failed attempts."""
    dns_ms: float | None = None
    tcp_ms: float | None = None
    tls_ms: float | None = None
    send_ms: float | None = None
    """Connection at hand → last byte of the request given to the kernel."""
    headers_ms: float | None = None
    """Response headers − sent."""
    conn_reused: bool | None = None
    remote_addr: str | None = None
    transport: str = "fast"
    clock: str = "user"
    """Whose clock stamped the arrivals: `kernel` or `user`."""
    attempts: int = 0

    output_tokens: int | None = None
    token_source: str | None = None
    """`usage`, `tokenizer`, or `chunks` (an estimate)."""
    input_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    asked_output_tokens: int | None = None
    asked_input_tokens: int | None = None
    """What the prompt's messages were meant to have, without what a chat template adds."""
    prefix_tokens: int | None = None
    """Of those, at the beginning, in common with other prompts on purpose: what a prefix cache can save."""
    output_chars: int = 0
    """Unicode code points."""
    request_bytes: int = 0
    response_bytes: int = 0
    """Bytes on the wire; under TLS, of the plaintext."""
    output_tps: float | None = None
    decode_tps: float | None = None

    server_total_ms: float | None = None
    server_load_ms: float | None = None
    server_prompt_ms: float | None = None
    server_decode_ms: float | None = None

    inputs: int | None = None
    """Texts that were made vectors of, as the reply has them."""
    vector_size: int | None = None
    """Numbers in each vector."""

    client_lag_ms: float | None = None
    """Worst (handled − lower bound of arrival)."""


COLUMNS: Final[tuple[str, ...]] = RequestRecord.__struct_fields__

_TIMES = frozenset(column for column in COLUMNS if column.endswith("_time"))
_FORMULA_STARTS = ("=", "+", "-", "@")
_UNPRINTED = (*range(32), *range(127, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A))  # the last: text direction
_SURROGATES = range(0xD800, 0xE000)  # alone they are no text, and cannot be encoded
_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*_UNPRINTED, *_SURROGATES)}


def one_line(text: str) -> str:
    """Untrusted text for a terminal or a cell: on one line, control characters written out (`\\n`, `\\x1b`)."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def guard(text: str) -> str:
    """Untrusted text for a cell: one line, and no spreadsheet takes it for a formula, since a leading `= + - @` gets an
    apostrophe before it."""
    text = one_line(text)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _cell(column: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6f}" if column in _TIMES else f"{value:.3f}"
    if value is None:
        return ""
    if isinstance(value, str):
        return guard(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def csv_header() -> str:
    """The first line of `requests.csv`, with its line end."""
    return ",".join(COLUMNS) + "\n"


def csv_rows(records: Iterable[RequestRecord]) -> str:
    """Lines of `requests.csv`. Milliseconds have three decimals, epoch seconds six; text is guarded and quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for record in records:
        writer.writerow(map(_cell, COLUMNS, msgspec.structs.astuple(record)))
    return out.getvalue()


def measure(record: RequestRecord, line: Timeline, anchor: Anchor, hidden_tokens: int = 0) -> None:
    """Fill the record's times, durations and rates from its timeline; tokens must already be in the record.

    `hidden_tokens`: output tokens the server counted but never sent (reasoning kept to itself), which no speed of the
    stream may count.
    """
    start, at = line.start, line.at
    record.start_time = anchor.wall(start)
    record.intended_time = anchor.wall(line.intended)
    record.queue_ms = _ms(start, line.intended)
    record.chunks = len(at)
    if at:
        record.output_chars = sum(line.characters)
    if line.end is not None:
        record.end_time = anchor.wall(line.end)
        record.e2e_ms = _ms(line.end, start)
    _measure_connection(record, line)
    if at:
        _measure_tokens(record, line, anchor, hidden_tokens)
    if record.output_tokens and record.e2e_ms:
        record.output_tps = record.output_tokens * 1e3 / record.e2e_ms
    if line.client_lag_ns is not None:
        record.client_lag_ms = line.client_lag_ns / 1e6


def _ms(later: int, earlier: int) -> float:
    return (later - earlier) / 1e6


def _measure_connection(record: RequestRecord, line: Timeline) -> None:
    parts = [part for part in (line.dns_ns, line.tcp_ns, line.tls_ns, line.send_ns) if part is not None]
    for column, part in (("dns_ms", line.dns_ns), ("tcp_ms", line.tcp_ns), ("tls_ms", line.tls_ns)):
        if part is not None:
            setattr(record, column, part / 1e6)
    if line.send_ns is not None:
        record.send_ms = line.send_ns / 1e6
    if line.sent is not None:
        record.pool_ms = max(0, line.sent - line.start - sum(parts)) / 1e6
        if line.headers is not None:
            record.headers_ms = _ms(line.headers, line.sent)


def _measure_tokens(record: RequestRecord, line: Timeline, anchor: Anchor, hidden_tokens: int) -> None:
    at, start = line.at, line.start
    record.first_token_time = anchor.wall(at[0])
    record.ttft_ms = _ms(at[0], start)
    record.ttft_low_ms = _ms(line.low[0], start)
    record.ttft_due_ms = _ms(at[0], line.intended)
    if line.sent is not None:
        record.ttft_sent_ms = _ms(at[0], line.sent)
    if line.first_answer is not None:
        record.ttfo_ms = _ms(line.first_answer, start)
    record.last_token_ms = _ms(at[-1], start)
    record.first_read_chunks = line.first_read_chunks
    record.max_read_chunks = line.max_read_chunks
    streamed = None if record.output_tokens is None else record.output_tokens - hidden_tokens
    if streamed is not None:
        record.tokens_per_chunk = streamed / len(at)
    if len(at) > 1:
        if line.low[:2] == at[:2]:  # else it is unknown, not 0
            record.ttst_ms = _ms(at[1], at[0])
        told = len(line.cumulative) == len(at)
        first = max(line.cumulative[0] - hidden_tokens, 1) if told else 1
        if streamed is not None and streamed > first:
            record.tpot_ms = _ms(at[-1], at[0]) / (streamed - first)
            record.decode_tps = 1e3 / record.tpot_ms if record.tpot_ms else None
    gaps = sorted(line.gaps())
    if gaps:
        record.itl_mean_ms = sum(gaps) / len(gaps) / 1e6
        record.itl_p50_ms = percentile(gaps, 50) / 1e6
        record.itl_p99_ms = percentile(gaps, 99) / 1e6
        record.itl_max_ms = gaps[-1] / 1e6
