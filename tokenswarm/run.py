"""A run while it lasts, in one process that has users: what they all share, from the start of the load to its end."""

from __future__ import annotations

import itertools
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
import msgspec
from gevent.event import Event

from tokenswarm.ending import DATASET, TOKEN_BUDGET, TRACE
from tokenswarm.errors import DatasetError, Exhausted, OptionError, RequestError
from tokenswarm.load import arrivals, think_time
from tokenswarm.load.allowance import Allowance, Reserved, deal
from tokenswarm.load.leaving import Leavers
from tokenswarm.load.open_loop import OpenLoop
from tokenswarm.load.part import Part
from tokenswarm.options import Options, protocol_of, proxy_url, redact, request_headers, secret_values
from tokenswarm.options.ends import dealt
from tokenswarm.protocols.base import Generation, Message
from tokenswarm.record import SHED, RequestRecord
from tokenswarm.recording.messages import Assignment, Batch, Step
from tokenswarm.recording.recorder import InFlight, Recorder
from tokenswarm.timing import Anchor
from tokenswarm.traffic import ALL, Traffic, Workload, traffic_by_class
from tokenswarm.transport.base import Client, Limits, Transport
from tokenswarm.transport.function import FunctionTransport
from tokenswarm.transport.http import FastTransport
from tokenswarm.transport.origin import WEBSOCKET_SCHEMES, Origin, Origins
from tokenswarm.transport.portable import PortableTransport
from tokenswarm.transport.replicas import Replicas
from tokenswarm.transport.reply import ReplyState
from tokenswarm.transport.websocket import WebSocketTransport
from tokenswarm.workload.prompts import Prompt
from tokenswarm.workload.traces import Trace, TraceEntry

TICK_SECONDS = 1.0
PAUSE_SECONDS = 0.0005
"""Between two pieces of what is done once a second: what is due and what has come meanwhile goes first."""


def make_transport(options: Options, origins: Origins) -> Transport:
    """The transport that the options ask for, as they want it. Raises OptionError."""
    each = [_transport_to(origin, options) for origin in origins.each]
    return Replicas(each) if len(each) > 1 else each[0]


def _transport_to(origin: Origin, options: Options) -> Transport:
    limits = Limits(
        connect=options.connect_timeout,
        total=options.request_timeout,
        first_token=options.first_token_timeout,
        stall=options.stall_timeout,
    )
    if options.query_model is not None:
        return FunctionTransport(origin, limits, options.query_model)
    settings: dict[str, Any] = {
        "keep_alive": options.keep_alive,
        "insecure": options.insecure,
        "ca_bundle": options.ca_bundle,
        "client_cert": options.client_cert,
    }
    headers = request_headers(options)
    if protocol_of(options).request_type == "WS":
        return WebSocketTransport(origin, limits, headers, **settings)
    if origin.scheme in WEBSOCKET_SCHEMES:
        raise OptionError(f"--host {origin.url}: --protocol {options.protocol} goes over http:// or https://")
    if options.transport == PortableTransport.name:
        return PortableTransport(origin, limits, headers, **settings, proxy=proxy_url(options))
    return FastTransport(origin, limits, headers, **settings)


class Run:
    """Made at the start of the load, before any user runs; `finish` at its end. Raises OptionError and
    DatasetError."""

    def __init__(
        self,
        environment: Any,
        options: Options,
        origins: Origins,
        model: str,
        place: Assignment,
        anchor: Anchor,
        sink: Callable[[Batch], None],
        workloads: Mapping[str, Workload],
        before_tick: Callable[[Recorder], None] | None = None,
    ) -> None:
        """`place`: the run's id and this process's seat in it. `anchor`: the run's clock. `sink` takes a batch a
        second; `before_tick` may correct the recorder's clock first. `workloads`: as `traffic.prepare` has them."""
        self.environment = environment
        self.options = options
        self.origins = origins
        self.model = model
        self.protocol = protocol_of(options)
        self.stopping = False
        """No new task may begin."""
        self.finished = False
        """No request may begin."""
        self._traffic = traffic_by_class(workloads, place, lambda text: self.recorder.problem(text))
        self._news = Event()
        """Something is to be told before the second is over."""
        self.part = Part(_allowance(options, place), self._news.set)
        self.leavers = Leavers(
            options.cancel_rate or 0.0, options.cancel_after, options.patience, seed=options.seed, worker=place.worker
        )
        self.transport = make_transport(options, origins)
        self.recorder = Recorder(
            place.run,
            place.worker,
            anchor,
            self._user_counts,
            self.transport.clock.take_longest_busy,
            sink,
            options.save_responses,
        )
        if place.worker >= place.workers and (shared := dealt(options)):
            self.recorder.problem(f"it came later, and has no share of {shared}: it sends nothing")
        self._said_too_small = False
        self._before_tick = before_tick
        if before_tick is not None:  # a run may end before its first second has
            before_tick(self.recorder)
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._secrets = secret_values(options)
        self._give_reasons: set[str] = set()
        """Models whose replies have said why they ended."""
        self._clients: set[Client] = set()
        think = None if options.think_time is None else think_time.parse(options.think_time)
        draw = random.Random(random.getrandbits(64))  # from the one that is seeded
        self.think_time = None if think is None else partial(think, draw)
        """Draws seconds, where --think-time is given."""
        self._trace = self._open_trace()
        self.open_loop = self._make_open_loop(place)
        """None in the closed loop."""
        self._steps: list[tuple[int, int]] = []
        """The numbers of steps, and when each began."""
        self._ticker = gevent.spawn(self._tick)

    def take_step(self, step: Step) -> None:
        """The asked number of users has changed, or all of them are there."""
        began = self.recorder.anchor.monotonic(step.at)
        self.recorder.step = step.serial
        if not self._steps or step.number > self._steps[-1][1]:
            self._steps.append((began, step.number))
        if self.open_loop is not None:
            self.open_loop.take_step(step, began)

    def step_at(self, instant: int) -> int:
        """The number of the step that was on then, in monotonic nanoseconds."""
        found = next((number for began, number in reversed(self._steps) if began <= instant), None)
        return found if found is not None else self._steps[0][1] if self._steps else 0

    def traffic(self, user_class: type) -> Traffic:
        """What users of this class send."""
        return self._traffic.get(user_class.__name__, self._traffic[ALL])

    def next_prompt(self, traffic: Traffic) -> Prompt:
        """The next prompt of the workload. Raises DatasetError where there can be none, and Exhausted where each was
        given once; the run then ends."""
        return self._given(traffic.supply.next)

    def _given(self, prompt: Callable[[], Prompt]) -> Prompt:
        try:
            return prompt()
        except Exhausted:
            self.part.use_up(DATASET)
            raise
        except DatasetError as error:
            self.stop()
            self.recorder.give_up(str(error))
            raise

    def take(self, messages: Sequence[Message], generation: Generation) -> Reserved | None:
        """Let a request through, which may have to wait for others to end. None: there is nothing left to send."""
        allowance = self.part.allowance
        size = 0
        if allowance.counts_tokens:
            with suppress(TypeError, ValueError):  # what cannot be written cannot be sent either; its row says why
                size = len(msgspec.json.encode(messages))
        reserved = self.part.take(size, generation.max_tokens)
        buys_nothing = allowance.over == TOKEN_BUDGET and allowance.spent == 0 and allowance.needed
        if reserved is None and buys_nothing and not self._said_too_small:
            self._said_too_small = True
            text = f"its share of --token-budget is less than the {allowance.needed:,} tokens that a request may cost"
            self.recorder.problem(f"{text}: a token for each byte of the prompt, and the reply's most")
        return reserved

    def prompt_for(self, entry: TraceEntry, traffic: Traffic) -> Prompt:
        """What an entry of a trace asks. Raises as `next_prompt`."""
        if entry.prompt is not None:
            return self._given(partial(traffic.supply.of_trace, entry.prompt))
        if entry.input_tokens is None:
            prompt = self.next_prompt(traffic)
        else:
            prompt = self._given(partial(traffic.supply.of_length, entry.line, entry.input_tokens, entry.hash_ids))
        return msgspec.structs.replace(prompt, output_tokens=entry.output_tokens or prompt.output_tokens)

    def shed(self, user_class: str, name: str, due: int) -> None:
        """The row of a task that was due and is not begun, in monotonic nanoseconds."""
        self.recorder.shed(
            RequestRecord(
                id=self.next_request_id(),
                worker=self.recorder.worker,
                user_class=user_class,
                name=name,
                protocol=self.protocol.name,
                model=self.model,
                step=self.step_at(due),
                status=SHED,
                intended_time=self.recorder.anchor.wall(due),
                transport=self.transport.name,
            )
        )
        self.part.shed()

    def next_request_id(self) -> str:
        """Unique over runs and workers; goes out as X-Request-Id. A UUID, since some servers refuse any other."""
        return f"{self._prefix}-{self.recorder.worker:04x}-4000-8000-{next(self._numbers):012x}"

    def cut_short(self, model: str, reply: ReplyState) -> RequestError | None:
        """What is wrong with the end of a reply that reported no error: it has no finish reason, though others of its
        model had one. llama-cpp-python ends a reply like that to begin another's, end mark and all."""
        if reply.finish_reason is not None:
            self._give_reasons.add(model)
        elif model in self._give_reasons:
            said = "the reply ended without a finish reason, which others had: the server broke it off"
            return RequestError("truncated", said, reply.status)
        return None

    def client(self) -> Client:
        """Connections for one user; give it back with `forget`."""
        client = self.transport.client()
        self._clients.add(client)
        return client

    def forget(self, client: Client) -> None:
        """A user has ended: close its connections; requests that greenlets of its own still make go on to their end."""
        client.retire()
        if not client.busy:
            self._clients.discard(client)

    def redact(self, text: str) -> str:
        """Text in which no key or expanded header value stands."""
        return redact(text, self._secrets)

    def stop(self) -> None:
        """No new task begins; what is in flight goes on."""
        if self.open_loop is not None:
            self.open_loop.stop()
        self.stopping = True
        self.part.stop()

    def finish(self) -> list[InFlight]:
        """Every request gets its row and goes into a last batch. Switches no greenlet. Returns the calls that this cut,
        of which Locust is yet to be told."""
        self.stop()
        self.finished = True
        self._ticker.kill(block=False)
        self.recorder.through, self.recorder.drained = self.part.through, self.part.drained
        for traffic in self._traffic.values():
            traffic.supply.close()
        if self._trace is not None:
            self._trace.close()  # what it has left out goes into the last batch, too
        cut = self.recorder.finish()
        for client in self._clients:
            client.close()
        self.transport.close()
        if self.open_loop is not None:
            self.open_loop.cut(block=False)
        return cut

    def _open_trace(self) -> Trace | None:
        path = arrivals.parse(self.options.arrivals).trace
        strict = self.options.dataset_errors == "fail"
        return Trace(path, strict=strict, tell=lambda text: self.recorder.problem(text)) if path else None

    def _make_open_loop(self, place: Assignment) -> OpenLoop | None:
        if not arrivals.parse(self.options.arrivals).open:
            return None
        through = partial(self.part.use_up, TRACE)
        return OpenLoop(self.options, place, lambda: self._user_counts()[0], self._trace, through, self._fail)

    def _fail(self, why: str) -> None:
        self.stopping = True
        self.part.stop()
        self.recorder.give_up(why)

    def _tick(self) -> None:
        due = time.monotonic()
        while True:
            due = max(due + TICK_SECONDS, time.monotonic())
            self._news.wait(max(0.0, due - time.monotonic()))
            due = min(due, time.monotonic())
            self._news.clear()
            try:
                if self._before_tick is not None:
                    self._before_tick(self.recorder)
                self.recorder.through, self.recorder.drained = self.part.through, self.part.drained
                self.recorder.tick(partial(gevent.sleep, PAUSE_SECONDS))
            except Exception as error:  # the next second may go better, and the rest of the run must be recorded
                self.recorder.problem(f"A second could not be recorded: {error!r}")

    def _user_counts(self) -> tuple[int, int]:
        runner = self.environment.runner
        return runner.user_count, runner.target_user_count


def _allowance(options: Options, place: Assignment) -> Allowance:
    """This process's share of what all of them may send."""
    shares = (
        None if total is None else deal(total, place.worker, place.workers)
        for total in (options.requests, options.token_budget)
    )
    return Allowance(*shares)
