"""What master and workers say to each other: values that travel as one bytes value each, over Locust's own channel.

worker                              master
Ping ──────────────────────────────▶ Pong           all along: what the master's clock shows
Hello ─────────────────────────────▶ Assignment     at the start: which run, which seat
Ready ─────────────────────────────▶                the target was checked, or why not
Batch, once a second ──────────────▶ Taken          kept by the worker until then
                                   ◀ Step           the asked number of users changed, or is reached
                                   ◀ Finish         at the stop
Batch, Done ───────────────────────▶ Taken
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec

from tokenswarm.errors import MessageError

SCHEMA: Final = 1
"""Raised when a message changes so that the other side would misread it."""

Count = Annotated[int, msgspec.Meta(ge=0)]


class Totals(msgspec.Struct):
    """Since the start of the run, for the console line: counts, and sums whose quotients are means."""

    started: int = 0
    ended: int = 0
    ok: int = 0
    errors: int = 0
    ttft_ms: float = 0.0
    ttft_count: int = 0
    e2e_ms: float = 0.0
    output_tokens: int = 0
    token_chunks: int = 0
    """Chunks of the requests whose tokens are in `output_tokens`."""
    chunks: int = 0
    characters: int = 0
    user_seconds: float = 0.0
    """Running users, summed over time."""
    whole_tokens: int = 0
    """Output tokens of replies that were not streamed."""
    seconds: float = 0.0
    """That this covers; of several workers, summed."""

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Every message tells its schema, so that another version is refused by name."""

    schema: int = SCHEMA


class Ping(Message, frozen=True, tag="tokenswarm-ping"):
    """`sent` is the worker's CLOCK_MONOTONIC in nanoseconds, which only the worker reads again."""

    sent: int


class Pong(Message, frozen=True, tag="tokenswarm-pong"):
    """`wall` is what the master's clock showed in between, UTC nanoseconds."""

    sent: int
    wall: int


class Hello(Message, frozen=True, tag="tokenswarm-hello"):
    """A worker was told to start load."""

    version: str
    hostname: str
    pid: int
    machine: str = ""
    """Equal to the master's where `pid` means the same process to both."""


class Assignment(Message, frozen=True, tag="tokenswarm-run"):
    """Seat `worker` of `workers` in the run of that id; who came later sits past them. `refused`: why there is none."""

    run: str = ""
    worker: Count = 0
    workers: Count = 1
    refused: str = ""


class Ready(Message, frozen=True, tag="tokenswarm-ready"):
    """The worker's users may begin, or why they may not."""

    run: str
    worker: Count
    model: str = ""
    clock: str = ""
    """Whose clock stamps its arrivals: `kernel` or `user`."""
    refused: str = ""


class Batch(Message, frozen=True, tag="tokenswarm-batch"):
    """What one worker measured in one interval: whole lines, ready to be appended."""

    run: str
    worker: Count
    seq: Count
    """From 0, without gaps."""
    rows: bytes
    """Lines of requests.csv."""
    row_count: Count
    interval: bytes
    """One line of intervals.jsonl."""
    responses: bytes
    """Lines of responses.jsonl."""
    totals: Totals
    in_flight: Count
    exceptions: dict[str, int] = {}
    """What the locustfile's own code raised, since the start of the run."""
    problems: list[str] = []
    """New ones, as sentences."""
    gave_up: str = ""
    """Why the run cannot go on."""
    users: Count = 0
    """That run there now."""
    through: str = ""
    """Why this process has nothing more to send, or less than its users would; empty while it has."""
    drained: bool = False
    """Whether it has nothing more to send, and all that it sent has ended."""
    offset_ns: int = 0
    """The worker's wall clock − the master's."""
    uncertainty_ns: Count = 0
    step: int = -1
    """`serial` of the last `Step` that it took; -1: none yet."""


class Done(Message, frozen=True, tag="tokenswarm-done"):
    """The worker's load has ended, and it sent so many batches."""

    run: str
    worker: Count
    batches: Count


class Step(Message, frozen=True, tag="tokenswarm-step"):
    """The asked number of users has changed, or all of them are there. What workers must know alike to act as one."""

    run: str
    serial: Count
    """Of these messages, in a run: from 0."""
    number: Count
    """How often the asked number has changed before: 0 is the number that the load began with."""
    users: Count
    """Asked, over all workers."""
    at: float
    """When it holds, UTC epoch seconds on the run's clock. All there: a little later than this is sent."""
    reached: bool = False
    """Whether all users are there."""
    before: Count = 0
    """Users of the workers in the seats before this one, once all are there."""
    own: Count | None = None
    """Users of this one, by the master's count, so that no two workers send the same; None: all are here."""


class Taken(Message, frozen=True, tag="tokenswarm-taken"):
    """The batch of this number is in the master's hands; the number after the last batch stands for Done."""

    run: str
    seq: Count


class Finish(Message, frozen=True, tag="tokenswarm-finish"):
    """Let what is in flight end, within the stop timeout; `cut`: now."""

    run: str
    cut: bool = False


M = TypeVar("M", bound=Message)


def kind(message: Message | type[Message]) -> str:
    """The name under which Locust carries it."""
    return str(message.__struct_config__.tag)


def encode(message: Message) -> bytes:
    """One bytes value, which nothing on the way can misread."""
    return msgspec.msgpack.encode(message)


def decode(data: Any, expected: type[M]) -> M:
    """The message in what a peer sent. Raises MessageError, fit for a log line, if it is not one."""
    if not isinstance(data, bytes):
        raise MessageError(f"it is no bytes value but {type(data).__name__}")
    try:
        message = msgspec.msgpack.decode(data, type=expected)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        other = _schema(data)
        if other not in (None, SCHEMA):
            raise MessageError(_versions(other)) from None
        raise MessageError(str(error)) from None
    if message.schema != SCHEMA:
        raise MessageError(_versions(message.schema))
    if isinstance(message, Batch):
        _check_lines(message)
    return message


def _versions(other: int | None) -> str:
    return f"it is of another tokenswarm (schema {other}, here {SCHEMA}); install the same version on every machine"


class _AnyVersion(msgspec.Struct):
    schema: int


def _schema(data: bytes) -> int | None:
    try:
        return msgspec.msgpack.decode(data, type=_AnyVersion).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _check_lines(batch: Batch) -> None:
    for name, lines, count in (
        ("rows", batch.rows, batch.row_count),
        ("interval", batch.interval, 1),
        ("responses", batch.responses, None),
    ):
        if lines and not lines.endswith(b"\n"):
            raise MessageError(f"its {name} end in the middle of a line")
        found = lines.count(b"\n")
        if count not in (None, found):
            raise MessageError(f"its {name} are {found} lines, not the {count} that it claims")
