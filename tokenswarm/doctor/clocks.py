"""Time on this machine: does the kernel stamp arrivals, are clocks quick to read, does the wall clock keep still?"""

from __future__ import annotations

import itertools
import socket
import statistics
import time
from pathlib import Path
from typing import Final

import msgspec
from gevent.monkey import get_original

from tokenswarm.doctor.finding import Finding, fail, ok, warn
from tokenswarm.transport.clock import ANCILLARY_BYTES, KERNEL_STAMPS, clock_offset, enable_stamps, stamp_of, unread_of

_ROUNDS: Final = 100
_PATIENCE_SECONDS: Final = 1.0
_WAIT_SECONDS: Final = 2.0
_SLOW_READ_NS: Final = 1000
_COARSE_STEP_NS: Final = 10_000
_MOVED_NS: Final = 20_000
_STABLE_SECONDS: Final = 0.5
_WINDOWS: Final = 10
_QUICK_SOURCES: Final = frozenset(
    ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "hyperv_clocksource")
)
_SOURCES: Final = Path("/sys/devices/system/clocksource/clocksource0")

# Locust has replaced the module's socket by one that waits in the event loop, whose turn would be measured as well.
_plain_socket: Final = get_original("socket", "socket")


class Stamp(msgspec.Struct, frozen=True):
    """One byte over loopback; CLOCK_MONOTONIC nanoseconds after it was handed to the kernel."""

    stamped: int
    read: int
    unread: int
    """Bytes left in the socket after it, −1 where the kernel does not tell."""


def kernel_stamps() -> Finding:
    """Sends bytes over a loopback connection and looks for the kernel's stamp on each."""
    subject = "kernel stamps"
    without = "arrivals are timed when Python reads them, so a busy client measures itself"
    if not KERNEL_STAMPS:
        return warn(subject, f"this system has none: {without}; measure from Linux")
    try:
        stamps = loopback_stamps()
    except OSError as error:
        return fail(subject, f"no connection over loopback: {error.strerror or error}; is the interface lo up?")
    if not stamps:
        return warn(subject, f"asked for, but none came (a sandbox such as gVisor?): {without}")
    stamped, read = (statistics.median(getattr(s, name) for s in stamps) / 1e3 for name in ("stamped", "read"))
    text = f"a byte over loopback is stamped {stamped:.0f} µs after its send; Python has it after {read:.0f} µs"
    if any(stamp.stamped < -_MOVED_NS for stamp in stamps):
        return warn(subject, f"{text}; some stamps lie before the send: the wall clock was set meanwhile, try again")
    if any(stamp.unread != 0 for stamp in stamps):
        return warn(subject, f"{text}; but TCP_INQ is missing, so merged reads are told less well: use Linux 4.18+")
    return ok(subject, f"{text}; TCP_INQ works")


def loopback_stamps() -> list[Stamp]:
    """Up to 100 stamped bytes; none where the kernel does not stamp. Raises OSError where loopback does not work."""
    with _plain_socket() as listener, _plain_socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client.settimeout(_WAIT_SECONDS)
        if not enable_stamps(client):
            return []
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _exchange(server, client)


def _exchange(server: socket.socket, client: socket.socket) -> list[Stamp]:
    stamps: list[Stamp] = []
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while len(stamps) < _ROUNDS and time.monotonic() < give_up:
        sent = time.monotonic_ns()
        server.send(b".")
        _, ancillary, _, _ = client.recvmsg(1, ANCILLARY_BYTES)
        read = time.monotonic_ns()
        stamp = stamp_of(ancillary)
        if stamp:
            stamps.append(Stamp(stamp - clock_offset() - sent, read - sent, unread_of(ancillary)))
        else:
            time.sleep(0.001)  # the first socket of a host that asks for stamps gets them a moment later
    return stamps


def source(folder: Path = _SOURCES) -> Finding:
    """What the kernel counts time with."""
    subject = "clock source"
    try:
        current = (folder / "current_clocksource").read_text().strip()
        available = (folder / "available_clocksource").read_text().split()
    except OSError:
        return ok(subject, "not told on this system")
    if current in _QUICK_SOURCES:
        return ok(subject, current)
    advice = "boot with clocksource=tsc tsc=reliable if the processor's is"
    if "tsc" in available:
        advice = f"tsc is there: echo tsc > {folder / 'current_clocksource'} (dmesg says why the kernel left it)"
    return warn(subject, f"{current}, slow to read or coarse; {advice}")


def reading() -> Finding:
    """What reading the monotonic clock costs and how fine it is, measured."""
    count = 10_000
    began = time.monotonic_ns()
    for _ in range(count):
        time.monotonic_ns()
    cost = (time.monotonic_ns() - began) / count
    values = [time.monotonic_ns() for _ in range(count)]
    step = min((b - a for a, b in itertools.pairwise(values) if b > a), default=0)
    return judge_reading(cost, step)


def judge_reading(cost: float, step: int) -> Finding:
    """Nanoseconds for one reading, and the smallest difference seen between two (0: none was seen)."""
    text = f"a reading of CLOCK_MONOTONIC costs {cost:.0f} ns, the smallest step seen is {step} ns"
    if cost > _SLOW_READ_NS:
        return warn("clock", f"{text}: slow, a system call each time; see the clock source")
    if not 0 < step <= _COARSE_STEP_NS:
        return warn("clock", f"{text}: coarse; see the clock source")
    return ok("clock", text)


def stability(seconds: float = _STABLE_SECONDS) -> Finding:
    """Whether CLOCK_REALTIME moves against CLOCK_MONOTONIC: stamps of the one are turned into the other."""
    offsets = []
    for _ in range(_WINDOWS):
        end = time.monotonic() + seconds / _WINDOWS
        window = [clock_offset()]
        while time.monotonic() < end:
            time.sleep(0.001)
            window.append(clock_offset())
        offsets.append(statistics.median(window))
    return judge_stability(max(offsets) - min(offsets), seconds)


def judge_stability(moved: float, seconds: float) -> Finding:
    """`moved` in nanoseconds. Frequency corrections (NTP) apply to both clocks alike, so only a set clock moves."""
    text = f"REALTIME − MONOTONIC moved by {moved / 1e3:.2f} µs within {seconds:g} s"
    if moved > _MOVED_NS:
        return warn("wall clock", f"{text}: something sets the clock; wait until time synchronisation has settled")
    return ok("wall clock", text)
