"""What a locustfile imports: `ChatUser`, a Locust user that holds streaming chats with a model server.

    from locust import task
    from tokenswarm.users import ChatUser

    class Poet(ChatUser):
        @task
        def write(self):
            reply = self.chat("Write four lines about rain.", max_tokens=60)
            if reply.ok:
                self.chat(f"Now in Chinese: {reply.text}")

Without a task of its own, a ChatUser sends prompts from the workload, one after another.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, NoReturn

import gevent
from locust import User, task
from locust.exception import InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately, StopTest, StopUser
from locust.user.task import LOCUST_STATE_STOPPING, LOCUST_STATE_WAITING
from msgspec import structs

from tokenswarm import plugin
from tokenswarm.call import Call, Reply
from tokenswarm.errors import DatasetError, Exhausted
from tokenswarm.load.allowance import cost
from tokenswarm.load.leaving import After
from tokenswarm.load.pace import Pace
from tokenswarm.options.cancelling import after
from tokenswarm.protocols.base import Message
from tokenswarm.record import SHED, RequestRecord
from tokenswarm.run import Run
from tokenswarm.transport.base import Client
from tokenswarm.workload.conversation import History
from tokenswarm.workload.prompts import Prompt, Turn

__all__ = ["ChatUser", "Conversation", "Message", "Prompt", "Reply"]

RETRIED: Final = frozenset(("connect", "connect_timeout", "rate_limited", "http_5xx", "truncated"))
"""What --retries tries again: what may be over the next time."""
BACK_OFF_SECONDS: Final = 0.5
"""Before the first retry; twice as long before each further one."""
MOST_BACK_OFF_SECONDS: Final = 30.0

_PACE: Final[ContextVar[Pace | None]] = ContextVar("pace", default=None)
"""Of the task whose greenlet this is, in the open loop; of no other greenlet."""
_log = logging.getLogger("tokenswarm")

plugin.install()


class ChatUser(User):
    """Chats over the protocol that `--protocol` names. Subclass it; think time is Locust's `wait_time`."""

    abstract = True
    options: Mapping[str, Any] = MappingProxyType({})
    """What is asked of this class's users in place of what the command line says, under the names that it has for it,
    with underscores: `{"dataset": "rag.jsonl", "output_tokens": "uniform:64-256"}`."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._run: Run | None = None
        self._client: Client | None = None
        self._own_pace = Pace()
        self._open_tasks = 0
        self._has_ended = False
        self._planned_wait = self.wait_time
        self.__dict__["wait_time"] = self._wait_time  # so that we learn when the next task is due
        self._planned_start = self.on_start
        self.__dict__["on_start"] = self._on_start

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Locust adds a class's tasks to its base's: ours is only for those who bring none.
        if len(cls.tasks) > 1:
            cls.tasks = [chosen for chosen in cls.tasks if chosen is not ChatUser.send_next_prompt]

    @task
    def send_next_prompt(self) -> None:
        """The task of a class that has none: the next prompt of the workload."""
        self._pace.send_at_once()
        self.hold(self.next_prompt())

    def next_prompt(self) -> Prompt:
        """The next prompt of the workload: of --dataset in its order, or of the bundled ones by --seed."""
        run = self._current_run()
        if run.finished:
            raise StopUser("the run is over")
        traffic, (entry, self._pace.entry) = run.traffic(type(self)), (self._pace.entry, None)
        if run.part.used_up and entry is None:
            self._rest(run)
        try:
            prompt = run.next_prompt(traffic) if entry is None else run.prompt_for(entry, traffic)
        except Exhausted:
            self._rest(run)
        except DatasetError as error:
            raise StopUser(str(error)) from None
        self._begin_work(run, self._pace)
        return prompt

    def hold(self, prompt: Prompt, *, name: str | None = None, **changes: Any) -> list[Reply]:
        """Send a prompt of the workload, and hold the whole conversation if it opens one: the user's turns one after
        another, `wait_time` between them, until one of them fails. Returns the reply to each turn.

        Takes what `chat` takes. What the assistant said is what the server said, unless --dataset-replies has it come
        from the dataset.
        """
        if prompt.then is None:
            return [self.chat(prompt, name=name, **changes)]
        from_file = self._current_run().traffic(type(self)).options.dataset_replies == "file"
        conversation = Conversation(self, History(), prompt.id, opening=prompt)
        replies: list[Reply] = []
        for turn in (Turn(prompt.messages, prompt.reply), *prompt.then):
            if replies:
                self.wait()
                self._pace.send_at_once()
            said = turn.reply if from_file else None
            replies.append(conversation.say(turn.messages, name=name, said=said, **changes))
            if not replies[-1].ok:
                break
        return replies

    def chat(
        self,
        prompt: str | Prompt | Sequence[Message],
        *,
        name: str | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stream: bool | None = None,
        extra_body: Mapping[str, Any] | None = None,
        cancel_after: float | str | None = None,
    ) -> Reply:
        """Send a prompt (a text, a list of messages, or one of the workload's) and wait for the whole reply.

        What is left out comes from the command line. `name` is what Locust's tables call the request; left out, it is
        the request's path. `cancel_after`: leave after so many seconds, or with the 20th token (`"20t"`), as
        --cancel-after has it. A failure does not raise: look at `reply.ok` and `reply.record`.
        """
        changes = {
            "model": model,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stream": stream,
            "extra_body": extra_body,
            "cancel_after": cancel_after,
        }
        return self._send(prompt, name, changes)

    def conversation(
        self,
        system: str | None = None,
        *,
        history_turns: int | None = None,
        history_tokens: int | None = None,
    ) -> Conversation:
        """Begin a conversation: each `say` is a request that carries what was said before, replies included.

        `system` is its system message (left out: --system-prompt); the other two limit what is carried along, in turns
        or in tokens, which are estimated. Raises ValueError on a limit below 0.
        """
        shared = None
        if system is None:
            system, shared = self._current_run().traffic(type(self)).supply.system()
        opening = Prompt("", (), prefix_tokens=shared)
        return Conversation(self, History(system, turns=history_turns, tokens=history_tokens), opening=opening)

    def _send(
        self,
        prompt: str | Prompt | Sequence[Message],
        name: str | None,
        changes: Mapping[str, Any],
        conversation: str | None = None,
        turn: int | None = None,
    ) -> Reply:
        """One request, tried again as often as --retries allows; every attempt has its row."""
        run = self._current_run()
        pace = self._pace
        if run.finished or (run.stopping and pace.begins):
            raise StopUser("the run is over")
        if run.part.spent or (run.part.used_up and not pace.at_work):
            self._rest(run)
        self._begin_work(run, pace)
        wanted = dict(changes)
        leaving = run.leavers.draw(_after(wanted.pop("cancel_after", None)))
        traffic = run.traffic(type(self))
        asked = traffic.supply.of(prompt)
        generation = traffic.generation(run.model, run.protocol.streams, asked, wanted)
        reserved = run.take(asked.messages, generation)
        if reserved is None:
            self._rest(run)
        if self._client is None:
            self._client = run.client()
        intended, parent = pace.intended(time.monotonic_ns()), None
        records: list[RequestRecord] = []
        try:
            for attempt in range(run.options.retries + 1):
                call = Call(run, self, self._client, asked.messages, generation, name, intended, leaving)
                record = call.record
                records.append(record)
                record.asked_input_tokens, record.prefix_tokens = asked.input_tokens, asked.prefix_tokens
                record.conversation, record.turn, record.parent = conversation, turn, parent
                reply = call.run()
                pace.ended(call.timeline.end or 0, time.monotonic_ns())
                if record.error_class not in RETRIED or attempt == run.options.retries or run.stopping:
                    break
                parent = parent or record.id
                gevent.sleep(min(BACK_OFF_SECONDS * 2**attempt, MOST_BACK_OFF_SECONDS))
                if run.finished:  # in a greenlet of the user's own: nothing could record it any more
                    break
        finally:
            run.part.settle(reserved, cost(records))
            if run.open_loop is not None and pace is self._own_pace:  # of no task: nobody else would end it
                self._end_work(pace)
        return reply

    def _rest(self, run: Run) -> NoReturn:
        """Nothing more is to be sent: stay, since Locust would make others of users that end, until the run is over."""
        self._end_work(self._pace)
        if run.open_loop is None and self._state != LOCUST_STATE_STOPPING:
            self._state = LOCUST_STATE_WAITING  # so that a ramp-down need not wait for us
            run.part.stopped.wait()
        raise StopUser("the run is over")

    def _begin_work(self, run: Run, pace: Pace) -> None:
        if not pace.at_work:
            pace.at_work = True
            run.part.begin()

    def _end_work(self, pace: Pace) -> None:
        if pace.at_work and self._run is not None:
            pace.at_work = False
            self._run.part.end()

    def start(self, group: Any) -> Any:
        """Locust's own, and the user's connections are closed when it ends."""
        greenlet = super().start(group)
        greenlet.rawlink(self._ended)
        return greenlet

    def _on_start(self) -> None:
        """A user's own code begins when the run does: until a worker knows its seat, what is drawn from `random` is
        what other workers draw. In the open loop it is all that happens in the user's own greenlet."""
        run = plugin.current_run(self.environment)
        if run is not None and not run.stopping:
            self._run = run
        self._planned_start()
        if self._run is not None and self._run.open_loop is not None and not self._run.stopping:
            self._end_work(self._own_pace)
            self._state = LOCUST_STATE_WAITING  # so that Locust ends it at once
            self._run.open_loop.serve(self)

    def _ended(self, _: Any) -> None:
        self._end_work(self._own_pace)
        self._has_ended = True
        self._let_go()

    def _let_go(self) -> None:
        """Close the connections of a user that has ended, once nobody needs them any more."""
        if self._has_ended and not self._open_tasks and self._run is not None and self._client is not None:
            self._run.forget(self._client)

    # The open loop: tasks that do not wait for each other

    def next_task(self) -> Any:
        """As `Source` has it."""
        assert self._taskset_instance is not None
        return self._taskset_instance.get_next_task()

    def begin_task(self, pace: Pace) -> None:
        """As `Source` has it."""
        self._open_tasks += 1
        self._begin_work(self._current_run(), pace)

    def run_task(self, task: Any, pace: Pace, due: int) -> None:
        """As `Source` has it: as Locust does it, but that what ends a user ends its one task."""
        assert self._taskset_instance is not None
        _PACE.set(pace)
        pace.woken(due, time.monotonic_ns())
        pace.begins = False  # it has: a stop lets it go on
        try:
            self._taskset_instance.execute_task(task)
        except (StopUser, StopTest, InterruptTaskSet, RescheduleTask, RescheduleTaskImmediately):
            return
        except Exception as error:
            self.environment.events.user_error.fire(user_instance=self, exception=error, tb=error.__traceback__)
            if not self.environment.catch_exceptions:
                raise
            _log.exception("A task of %s failed.", type(self).__name__)
        finally:
            self._end_work(pace)
            self._open_tasks -= 1
            self._let_go()

    @property
    def rests(self) -> bool:
        """As `Source` has it."""
        return self._current_run().part.used_up

    def shed(self, task: Any, due: int) -> None:
        """As `Source` has it."""
        run, name = self._current_run(), getattr(task, "__name__", str(task))
        run.shed(type(self).__name__, name, due)
        self.environment.stats.get(name, SHED.upper()).log(0, 0)

    def _current_run(self) -> Run:
        if self._run is None:
            run = plugin.current_run(self.environment)
            if run is None or run.stopping:  # refused, or begun while the run before still drains
                raise StopUser("the run did not start")
            self._run = run
        return self._run

    @property
    def _pace(self) -> Pace:
        """Of the task that calls this."""
        return _PACE.get() or self._own_pace

    def wait(self) -> None:
        """Think: `wait_time`, or --think-time. Raises StopUser where the run stops meanwhile."""
        run, pace = self._run, self._pace
        pace.holding = True
        try:
            if _PACE.get() is None or run is None or run.open_loop is None:
                super().wait()  # type: ignore[no-untyped-call]
            else:
                self._think(self._sleep_in_task)
        finally:
            pace.holding = False

    def _sleep_in_task(self, seconds: float) -> None:
        run = self._current_run()
        if run.open_loop is not None and run.open_loop.ends_within(seconds):
            raise StopUser("the run is over")

    def _wait_time(self) -> float:
        """Do the waiting that Locust asks the length of, to see how late it ends; what is left to wait is nothing."""
        if not self._own_pace.holding:
            self._end_work(self._own_pace)
        self._think(gevent.sleep)
        return 0.0

    def _think(self, sleep: Callable[[float], object]) -> None:
        due = time.monotonic_ns()
        asked = None if self._run is None else self._run.think_time
        seconds = float(self._planned_wait()) if asked is None else asked()
        if seconds > 0:
            due += int(seconds * 1e9)
            sleep(seconds)
        self._pace.woken(due, time.monotonic_ns())


class Conversation:
    """Turns of one user, each with what was said before. Its id and the turn's number are in the rows."""

    def __init__(self, user: ChatUser, history: History, origin: str = "", *, opening: Prompt) -> None:
        """`origin`: which prompt of the workload it is; its id then begins with that. `opening`: what is known of the
        lengths of its first turn."""
        self.id = f"{origin}-{secrets.token_hex(4)}" if origin else secrets.token_hex(6)
        self.turn = 0
        """Of the last `say`, from 1."""
        self._user = user
        self._history = history
        self._opening = opening

    def say(
        self, prompt: str | Sequence[Message], *, name: str | None = None, said: str | None = None, **changes: Any
    ) -> Reply:
        """The next turn, a user's text or the messages that it adds; takes what `ChatUser.chat` takes.

        A turn that failed is no part of what comes after it. `said`: carry this along as the answer, not the server's.
        """
        self.turn += 1
        asked = structs.replace(self._opening, messages=tuple(self._history.messages(prompt)))
        if self.turn > 1:  # it carries replies along, of whatever length they came
            asked = structs.replace(asked, input_tokens=None, output_tokens=None)
        reply = self._user._send(asked, name, changes, self.id, self.turn)
        if reply.ok:
            self._history.answered(prompt, reply.text if said is None else said)
        return reply


def _after(given: float | str | None) -> After | None:
    if given is None or isinstance(given, str):
        return None if given is None else after(given)
    return After(given, given)
