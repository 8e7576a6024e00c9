"""The transport to a function of the user's own, `query_model(prompt, max_resp_tokens)`, instead of to a server.

The function runs in a process beside this one (function_host.py), in a thread for each user: not in a thread here, for
Locust has patched this process, and connections that a client library shares between threads break under that. Nor can
code that is busy hold up this event loop. Each piece is stamped in the function's own thread as it is yielded;
CLOCK_MONOTONIC is the whole machine's, so the stamp holds here.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from typing import Any, Final

import gevent
import msgspec
from gevent.event import Event

from tokenswarm.errors import OptionError, RequestError
from tokenswarm.protocols.custom import END_MARK, FUNCTION
from tokenswarm.record import one_line
from tokenswarm.timing import Clock
from tokenswarm.transport.base import Call, Limits
from tokenswarm.transport.clock import LoopClock
from tokenswarm.transport.origin import Origin
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.request import Request

_READ_BYTES: Final = 65536
_MOST_READS: Final = 16
"""In one turn of the loop: a megabyte, so that nothing else waits for long."""
_READ, _WRITE = 1, 2  # libev's
_ENDINGS: Final = frozenset(("whole", "done", "error", "not_text"))
_decode_line = msgspec.json.Decoder(tuple[int, int, str, str]).decode


class FunctionHost:
    """The process that runs the function, and who waits for which of its answers. Raises OptionError where the file
    cannot be used, or has not been loaded within `seconds`."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path = path
        self.ended = False
        self._loaded = Event()
        self._refused = ""
        self._rest = b""
        self._out = bytearray()
        self._numbers = itertools.count(1)
        self._calls: dict[int, FunctionCall | None] = {}
        """Those that have not come back; None: nobody waits for it any more."""
        child_in, self._to_child = os.pipe()
        self._from_child, child_out = os.pipe()
        command = [sys.executable, "-m", "tokenswarm.transport.function_host", path]
        # A Ctrl-C at the terminal is for us; the function answers until we have drained.
        self._process = subprocess.Popen(command, stdin=child_in, stdout=child_out, start_new_session=True)
        for fd in (child_in, child_out):
            os.close(fd)
        loop = gevent.get_hub().loop
        self._readable, self._writable = loop.io(self._from_child, _READ, ref=False), loop.io(self._to_child, _WRITE)
        for fd in (self._to_child, self._from_child):
            os.set_blocking(fd, False)
        self._readable.start(self.read_now)
        in_time = False
        try:
            in_time = self._loaded.wait(seconds)
        finally:
            if not in_time or self._refused:
                self.stop()
        if not in_time:
            raise OptionError(f"--query-model {path}: not loaded within {seconds:g} s (--request-timeout)")
        if self._refused:
            raise OptionError(f"--query-model {path}: {one_line(self._refused)}")

    @property
    def stuck(self) -> bool:
        """Whether the function still works on what nobody waits for."""
        return bool(self._calls)

    def new_number(self) -> int:
        """For a user's thread or a call."""
        return next(self._numbers)

    def begin(self, call: FunctionCall, lane: int, arguments: bytes) -> int:
        """Have the function called in this user's thread; returns the call's number. Raises RequestError."""
        if self.ended:
            raise RequestError("connect", f"the process of {FUNCTION} has ended: {self._ending()}")
        number = self.new_number()
        self._calls[number] = call
        self._send({"lane": lane, "call": number, "arguments": msgspec.Raw(arguments)})
        return number

    def abandon(self, number: int, lane: int) -> bool:
        """Nobody waits for this call any more: its thread ends at its next piece. False if it had come back."""
        if number not in self._calls:
            return False
        self._calls[number] = None
        self.end_lane(lane)
        return True

    def end_lane(self, lane: int) -> None:
        """A user's thread is not needed any more."""
        self._send({"stop": lane})

    def stop(self) -> None:
        """End the process, whatever it does. Idempotent."""
        self._end()
        if self._process.poll() is None:
            self._process.kill()  # not waited for: that would switch greenlets

    def read_now(self) -> None:
        """Take what the process has said. In the event loop's callback, or in a call whose time is up."""
        for _ in range(_MOST_READS):
            if self.ended:
                return
            try:
                data = os.read(self._from_child, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._end()
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._heard(*_decode_line(line))

    def _heard(self, number: int, at: int, what: str, text: str) -> None:
        if number == 0:
            self._refused = text if what == "refused" else ""
            self._loaded.set()
            return
        call = self._calls.pop(number, None) if what in _ENDINGS else self._calls.get(number)
        if call is not None:
            call.heard(at, what, text)

    def _send(self, message: dict[str, Any]) -> None:
        if not self.ended:
            self._out += msgspec.json.encode(message) + b"\n"
            self._flush()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: os.write(self._to_child, self._out)]
            self._writable.stop()
        except BlockingIOError:
            self._writable.start(self._flush)
        except OSError:  # it has ended, which we learn by reading
            self._out.clear()

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._refused = self._refused or (f"its process ended: {self._ending()}" if not self._loaded.is_set() else "")
        self._loaded.set()
        for watcher in (self._readable, self._writable):
            watcher.stop()
            watcher.close()
        for fd in (self._to_child, self._from_child):
            os.close(fd)
        calls, self._calls = self._calls, {}
        now = time.monotonic_ns()
        for call in calls.values():
            if call is not None:
                call.heard(now, "error", f"the process of {FUNCTION} ended: {self._ending()}")

    def _ending(self) -> str:
        code = self._process.poll()
        return "what it printed says more" if code is None else f"exit status {code}"


class _Hosts:
    """The one process of each of ours: a model that the file loads is loaded once for the check and all runs."""

    def __init__(self) -> None:
        self._host: FunctionHost | None = None
        self._key: tuple[str, int] | None = None

    def get(self, path: str, seconds: float) -> FunctionHost:
        """The process that has this file, as it is now. Raises OptionError."""
        try:
            key = os.path.realpath(path), os.stat(path).st_mtime_ns
        except OSError as error:
            raise OptionError(f"--query-model {path}: {error.strerror}") from None
        if self._host is None or self._host.ended or self._key != key:
            self.drop()
            self._host, self._key = FunctionHost(path, seconds), key
        return self._host

    def drop(self) -> None:
        """End it."""
        host, self._host = self._host, None
        if host is not None:
            host.stop()


_hosts: Final = _Hosts()


class FunctionTransport:
    """What all users of a run share: the process with the function, and the limits. Raises OptionError."""

    name = "function"
    kernel_clock = False

    def __init__(self, origin: Origin, limits: Limits, path: str) -> None:
        self.origin = origin
        self.limits = limits
        self.host = _hosts.get(path, limits.total)
        self.clock = LoopClock(gevent.get_hub().loop)

    def client(self) -> FunctionClient:
        """Threads for one user."""
        return FunctionClient(self)

    def close(self) -> None:
        """The process stays for the next run, unless the function hangs in it."""
        self.clock.close()
        if self.host.stuck:
            _hosts.drop()


class FunctionClient:
    """One user's threads: as many as it has requests in flight, kept between them."""

    def __init__(self, transport: FunctionTransport) -> None:
        self.transport = transport
        self.busy: set[FunctionCall] = set()
        self._idle: list[int] = []
        self._retired = False

    def call(self, request: Request) -> FunctionCall:
        """A request, ready to `run`."""
        return FunctionCall(self, request)

    def take(self) -> int:
        """A thread that waits, or a new one."""
        return self._idle.pop() if self._idle else self.transport.host.new_number()

    def release(self, lane: int) -> None:
        """Its call has come back."""
        if self._retired:
            self.transport.host.end_lane(lane)
        else:
            self._idle.append(lane)

    def retire(self) -> None:
        """Keep no thread any more; those at work go on to the end of their request."""
        self._retired = True
        while self._idle:
            self.transport.host.end_lane(self._idle.pop())

    def close(self) -> None:
        """Requests in flight end now, as failures."""
        self.retire()
        for call in list(self.busy):
            call.abort("the run is over")


class FunctionCall(Call[ReplyState]):
    """One call of the function."""

    def __init__(self, client: FunctionClient, request: Request) -> None:
        self._client = client
        self._arguments = request.wire.body
        self._finished = Event()
        self._woken = False
        super().__init__(request, client.transport.limits)

    def _new_exchange(self) -> ReplyState:
        return ReplyState(self._request, self._finished.set)

    def heard(self, at: int, what: str, text: str) -> None:
        """What the function's process says of this call; `at`: when it happened there."""
        state, line = self.exchange, self.timeline
        if state.finished:
            return
        if what == "called":
            line.sent = at
        elif what == "error":
            state.fail(RequestError("stream_error", one_line(text)), at)
        elif what == "not_text":
            state.fail(RequestError("malformed", one_line(text)), at)
        elif not text and not line.at:
            state.fail(RequestError("empty", f"{FUNCTION} gave no text"), at)
        else:
            self._take(at, what, text)

    def abort(self, why: str) -> None:
        """End the request now."""
        self.exchange.fail(RequestError("client", why), time.monotonic_ns())

    def _take(self, at: int, what: str, text: str) -> None:
        state, data = self.exchange, text.encode()
        state.read_began(len(data), at, at, Clock.USER)
        if state.finished:
            return
        try:
            if state.status is None:  # there are no headers, but a reply is judged by them
                state.headers(200, "application/json" if what == "whole" else "text/plain", "", "", True)
                self.timeline.headers = None
            state.body(data if what != "done" else END_MARK)
        except RequestError as error:
            state.fail(error, at)
            return
        state.read_ended(time.monotonic_ns())
        if what in _ENDINGS:
            state.conclude(at)
        elif self._limits.stall is not None and not self._woken:
            self._woken = True
            self._finished.set()  # from the first piece on, the time limit is another

    def _attempt(self, fresh: bool) -> None:
        client, host = self._client, self._client.transport.host
        lane, number = client.take(), 0
        client.busy.add(self)
        try:
            number = host.begin(self, lane, self._arguments)
            self.request_bytes = len(self._arguments)
            self._wait(host)
        except RequestError as error:
            self._fail(error)
        finally:
            client.busy.discard(self)
            if not host.abandon(number, lane):
                client.release(lane)
            # There was no HTTP.
            self.exchange.status = None
            if self.exchange.error is not None:
                self.exchange.error.http_status = None

    def _wait(self, host: FunctionHost) -> None:
        exchange = self.exchange
        while not exchange.finished:
            due, _, _ = self._deadline()
            now = time.monotonic_ns()
            if now < due:
                self._finished.wait((due - now) / 1e9)
                if not exchange.finished:
                    self._finished.clear()
                continue
            host.read_now()  # what was yielded in time but not read yet counts
            due, _, _ = self._deadline()
            if not exchange.finished and now >= due:
                self._expire(now)
