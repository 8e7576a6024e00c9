"""A run directory as typed data frames. Forgiving: what a kill, a full disk or another version left behind is read as
far as it goes, and each defect is kept as a sentence in `Run.defects`.
"""

from __future__ import annotations

import codecs
import typing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import msgspec
import pandas as pd

from tokenswarm.errors import RunDirectoryError
from tokenswarm.results import hardware
from tokenswarm.results.figures.capacity import Capacity
from tokenswarm.results.files import memory, rows, server_metrics

Asked = ParamSpec("Asked")
Made = TypeVar("Made")

RUN_FILE: Final = "run.json"
ROWS_FILE: Final = "requests.csv"
INTERVALS_FILE: Final = "intervals.jsonl"


Number: TypeAlias = Annotated[float, msgspec.Meta(ge=-rows.LARGEST, le=rows.LARGEST)]
"""One that can have been measured."""
Instant: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=rows.LATEST)]
"""UTC epoch seconds."""
Users: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**9)]


class Target(msgspec.Struct, frozen=True):
    """What was loaded."""

    host: str | None = None
    simulator: bool = False
    protocol: str | None = None
    model: str | None = None
    transport: str | None = None


class UserClass(msgspec.Struct, frozen=True):
    name: str = ""
    think_time: bool = False
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    """What this class alone was given, as text or a truth value."""


class Load(msgspec.Struct, frozen=True):
    """The load that was asked for: arrivals `closed` or an open-loop process, with what each user is to send a second;
    run_time in seconds."""

    arrivals: str = "closed"
    rate_per_user: Number | None = None
    """Tasks a second that each user begins; None where the open loop does not say."""
    max_in_flight: int | None = None
    users: Users | None = None
    spawn_rate: Number | None = None
    run_time: Number | None = None


class Worker(msgspec.Struct, frozen=True):
    """`batches`: reports of it that arrived, each with an interval."""

    index: int = 0
    hostname: str | None = None
    pid: int | None = None
    clock: str | None = None
    clock_offset_ms: Number | None = None
    clock_uncertainty_ms: Number | None = None
    batches: int = 0
    missing_batches: int = 0
    rows: int | None = None
    in_flight: int = 0
    status: str | None = None


class Moment(msgspec.Struct, frozen=True):
    """UTC epoch seconds and the same as text."""

    time: Instant
    utc: str | None = None


class Boundary(msgspec.Struct, frozen=True):
    """A change of load at `time` (UTC epoch seconds): start, target, spawned, probe (of a capacity search), lost (a
    worker), through (a worker had nothing more to send), stopping or stopped."""

    time: Instant
    event: str
    users: Users | None = None


class RowCount(msgspec.Struct, frozen=True):
    written: int = 0
    lost: int = 0


class UserException(msgspec.Struct, frozen=True):
    """What a locustfile's own code raised, and how often."""

    count: int = 0
    message: str = ""


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """run.json. Every field may be missing; fields it has and we don't know are ignored."""

    schema: int = 1
    run_id: str = ""
    label: str = ""
    suite: dict[str, Any] = msgspec.field(default_factory=dict)
    host: dict[str, Any] = msgspec.field(default_factory=dict)
    command: list[str] = msgspec.field(default_factory=list)
    target: Target = Target()
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    seed: int | None = None
    user_classes: list[UserClass] = msgspec.field(default_factory=list)
    load: Load = Load()
    workers: list[Worker] = msgspec.field(default_factory=list)
    start: Moment | None = None
    end: Moment | None = None
    ended_by: str | None = None
    boundaries: list[Boundary] = msgspec.field(default_factory=list)
    capacity: Capacity | None = None
    scraped: list[dict[str, Any]] = msgspec.field(default_factory=list)
    rows: RowCount = RowCount()
    problems: list[str] = msgspec.field(default_factory=list)
    user_exceptions: list[UserException] = msgspec.field(default_factory=list)


class Interval(msgspec.Struct):
    """One line of intervals.jsonl: what one worker saw in one second that ended at `time`."""

    worker: int
    time: Instant
    seq: int = 0
    seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 1.0
    users: int = 0
    target_users: int | None = None
    in_flight: int = 0
    started: int = 0
    ended: dict[str, int] = msgspec.field(default_factory=dict)
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    chunks: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: list[tuple[Instant, Number]] = msgspec.field(default_factory=list)
    input_tokens: list[tuple[Instant, Number]] = msgspec.field(default_factory=list)
    ttft: str = ""
    itl: str = ""
    client_lag: str = ""
    merged_reads: int = 0
    late_merged_reads: int = 0
    cpu_percent: Number | None = None
    loop_cpu_percent: Number | None = None
    loop_wait_percent: Number | None = None
    loop_lag_ms: Number | None = None
    gc_pauses: int | None = None
    gc_pause_ms: Number | None = None
    gc_pause_max_ms: Number | None = None
    ring_full: int | None = None
    ring_full_ms: Number | None = None
    tcp_trouble: dict[str, int] | None = None
    steal_percent: Number | None = None
    throttled_percent: Number | None = None
    clock_jump_ms: Number | None = None
    descriptors: int | None = None
    descriptor_limit: int | None = None
    sockets: int | None = None
    ports: int | None = None


@dataclass(frozen=True)
class Run:
    """A run directory in memory.

    `rows` has one row a request with all of `record.COLUMNS`: numbers as float64 (NaN: not measured), `id` as str and
    other text as categories (empty: none). `intervals` has the fields of `Interval` as columns, in order of time;
    `hardware` and `server` (the model server's own page) are as `hardware.read` and `server_metrics.read` have them.
    `ended`: run.json tells of a proper end. `rows_damaged` counts rows that were there but unreadable.
    """

    path: Path
    info: RunInfo
    rows: pd.DataFrame
    intervals: pd.DataFrame
    hardware: pd.DataFrame
    server: pd.DataFrame
    defects: list[str] = field(default_factory=list)
    ended: bool = True
    rows_damaged: int = 0
    made: dict[Any, Any] = field(init=False, default_factory=dict, repr=False, compare=False)
    """What is made of it `once`."""

    @property
    def name(self) -> str:
        """The run's id, or the directory's name where run.json has none."""
        return self.info.run_id or self.path.resolve().name


def once(made: Callable[Concatenate[Run, Asked], Made]) -> Callable[Concatenate[Run, Asked], Made]:
    """For what is made of a whole run and asked for several times: it is kept with the run, and nobody changes it."""

    @wraps(made)
    def kept(run: Run, /, *asked: Asked.args, **named: Asked.kwargs) -> Made:
        key = (made, asked, *named.items())
        if key not in run.made:
            run.made[key] = made(run, *asked, **named)
        found: Made = run.made[key]
        return found

    return kept


def load(directory: str | Path) -> Run:
    """Read a run directory. Raises RunDirectoryError if there is none, or if nothing in it can be read."""
    path = Path(directory)
    if not path.is_dir():
        raise RunDirectoryError(
            f"{path} is not a directory: name the run directory that holds {RUN_FILE} and {ROWS_FILE}"
        )
    missing = [name for name in (RUN_FILE, ROWS_FILE) if not (path / name).is_file()]
    if len(missing) == 2:
        raise RunDirectoryError(f"{path} is not a run directory: it has neither {RUN_FILE} nor {ROWS_FILE}")
    memory.keep_what_is_freed()
    defects: list[str] = []
    of_hardware: list[str] = []
    with ThreadPoolExecutor(1) as beside:  # most of reading is done without Python's lock
        samples = beside.submit(hardware.read, path, of_hardware)
        info = _read_info(path / RUN_FILE, defects)
        requests, damaged = rows.read(path / ROWS_FILE, defects)
        intervals = _read_intervals(path / INTERVALS_FILE, defects)
    known = info != RunInfo()
    if info.end is None and known:
        defects.append(f"{RUN_FILE} has no end: the run was killed, crashed, or is still going on.")
    if info.rows.lost:
        defects.append(f"{info.rows.lost:,} rows could not be written while the run went on.")
    defects.extend([*info.problems, *of_hardware])
    server = server_metrics.read(path, defects)
    ended = info.end is not None or not known  # without run.json nobody knows
    return Run(path, info, requests, intervals, samples.result(), server, defects, ended, damaged)


def _read_bytes(path: Path, defects: list[str]) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        defects.append(f"{path.name} is missing.")
    except OSError as error:
        defects.append(f"{path.name} cannot be read: {error.strerror}.")
    return None


def _read_info(path: Path, defects: list[str]) -> RunInfo:
    data = _read_bytes(path, defects)
    if data is None:
        return RunInfo()
    try:
        raw = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        defects.append(f"{path.name} is damaged and was left out: {error}.")
        return RunInfo()
    known: dict[str, Any] = {}
    hints = typing.get_type_hints(RunInfo)
    for name in RunInfo.__struct_fields__:
        if name in raw:
            try:
                known[name] = msgspec.convert(raw[name], hints[name], strict=False)
            except msgspec.ValidationError as error:
                defects.append(f"{path.name}: {name} is not as expected and was left out ({error}).")
    return RunInfo(**known)


def _read_intervals(path: Path, defects: list[str]) -> pd.DataFrame:
    data = _read_bytes(path, defects)
    if data == b"":
        defects.append(f"{path.name} is empty: nothing is known of each second.")
    decoder = msgspec.json.Decoder(Interval, strict=False)
    intervals: list[Interval] = []
    lines = (data or b"").removeprefix(codecs.BOM_UTF8).split(b"\n")
    damaged = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            intervals.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            if number == len(lines):
                defects.append(f"{path.name}: the last line is torn and was left out.")
            else:
                damaged += 1
    if damaged:
        defects.append(f"{path.name}: {damaged:,} lines are damaged and were left out.")
    once = {(interval.worker, interval.seq, interval.time): interval for interval in intervals}
    if len(once) < len(intervals):
        defects.append(f"{path.name}: {len(intervals) - len(once):,} lines are there twice, and count once.")
    intervals = sorted(once.values(), key=lambda interval: interval.time)
    names = Interval.__struct_fields__
    return pd.DataFrame(
        {name: [getattr(interval, name) for interval in intervals] for name in names}, columns=list(names)
    )
