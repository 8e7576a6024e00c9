"""`--protocol custom`: a function of the user's own, timed where it runs, and whatever it does to us."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from locust_process import ROOT, headless, read_rows
from scripted_server import END, HEAD, Peer, chunk, scripted
from wire import request

from tokenswarm import options
from tokenswarm.errors import OptionError
from tokenswarm.protocols.base import Generation, Message
from tokenswarm.protocols.custom import Custom
from tokenswarm.timing import Timeline
from tokenswarm.transport import function
from tokenswarm.transport.base import Limits
from tokenswarm.transport.function import FunctionCall, FunctionTransport
from tokenswarm.transport.origin import function_origins
from tokenswarm.transport.request import Leaving, Request

PROTOCOL = Custom()
QUESTION: list[Message] = [{"role": "user", "content": "hi"}]


class User:
    """One user of a function, without Locust."""

    def __init__(self, path: Path, **limits: Any) -> None:
        self.transport = FunctionTransport(function_origins(str(path)).each[0], Limits(**limits), str(path))
        self.client = self.transport.client()
        self.first_tokens = 0

    def prepare(
        self, prompt: str = "hi", stream: bool = True, max_tokens: int | None = None, leaving: Leaving | None = None
    ) -> FunctionCall:
        generation = Generation(model="m", stream=stream, max_tokens=max_tokens)
        wire = PROTOCOL.encode([{"role": "user", "content": prompt}], generation)
        line = Timeline(time.monotonic_ns())
        return self.client.call(request(PROTOCOL, line, None, stream, wire, self._first, leaving=leaving))

    def call(self, prompt: str = "hi", stream: bool = True, max_tokens: int | None = None) -> FunctionCall:
        call = self.prepare(prompt, stream, max_tokens)
        call.run()
        assert call.exchange.finished
        return call

    def _first(self) -> None:
        self.first_tokens += 1

    def close(self) -> None:
        self.client.close()
        self.transport.close()


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Callable[..., User]]:
    """Makes a user of the function in this source."""
    made: list[User] = []

    def make(source: str, **limits: Any) -> User:
        path = tmp_path / "my_model.py"
        path.write_text(source, encoding="utf-8")
        made.append(User(path, **limits))
        return made[-1]

    yield make
    for one in made:
        one.close()
    function._hosts.drop()


def outcome(call: FunctionCall) -> tuple[str, str | None]:
    error = call.exchange.error
    return "".join(call.exchange.text), None if error is None else error.error_class


STAMPED = """
import time

def query_model(prompt, max_resp_tokens):
    for _ in range(max_resp_tokens):
        time.sleep(0.002)
        yield str(time.monotonic_ns()) + " "
"""


def test_each_piece_is_stamped_where_and_when_it_is_yielded(user: Callable[..., User]) -> None:
    one = user(STAMPED)
    call = one.call(max_tokens=20)
    line, told = call.timeline, [int(text) for text in call.exchange.text]
    assert (outcome(call)[1], len(line.at), one.first_tokens) == (None, 20, 1)
    # Between the function's own reading of the clock and ours there is only its `yield`.
    between = sorted(at - said for at, said in zip(line.at, told, strict=True))
    assert 0 <= between[0] <= between[10] < 500_000
    assert line.low == line.at
    assert line.start <= (line.sent or 0) <= line.at[0]
    assert (line.end or 0) >= line.at[-1]
    assert (call.exchange.status, line.headers, call.exchange.kernel_clock) == (None, None, False)


def test_a_busy_event_loop_does_not_show_in_the_times(user: Callable[..., User]) -> None:
    call = user(STAMPED).prepare(max_tokens=30)
    greenlet = gevent.spawn(call.run)
    while not call.timeline.at:
        gevent.sleep(0.001)
    time.sleep(0.2)  # ours is the only loop here, and stands still meanwhile
    greenlet.join()
    told = [int(text) for text in call.exchange.text]
    assert sorted(at - said for at, said in zip(call.timeline.at, told, strict=True))[15] < 500_000
    assert (call.timeline.client_lag_ns or 0) > 50_000_000, "but that it was late is told"


def test_busy_code_does_not_hold_up_the_event_loop(user: Callable[..., User]) -> None:
    call = user("def query_model(prompt, n):\n    sum(range(30_000_000))\n    yield 'a'").prepare()
    greenlet, turns = gevent.spawn(call.run), 0
    while not greenlet.ready():
        gevent.sleep(0.005)
        turns += 1
    assert turns > 10
    assert outcome(call) == ("a", None)


def test_the_arguments_are_the_prompt_and_a_number(user: Callable[..., User]) -> None:
    one = user("def query_model(prompt, n):\n    yield f'{prompt}/{n}'")
    assert outcome(one.call("你好", max_tokens=7)) == ("你好/7", None)
    assert outcome(one.call("你好")) == ("你好/1024", None)


@pytest.mark.parametrize("stream", [True, False])
def test_a_text_that_is_returned_is_a_whole_reply(user: Callable[..., User], stream: bool) -> None:
    call = user("def query_model(prompt, n):\n    return '你好'").call(stream=stream)
    assert (outcome(call), call.timeline.at, call.exchange.streamed) == (("你好", None), [], False)
    assert call.exchange.response_bytes == 6


def test_pieces_are_one_reply_where_no_stream_was_asked_for(user: Callable[..., User]) -> None:
    call = user("def query_model(prompt, n):\n    yield '你'\n    yield '好'").call(stream=False)
    assert (outcome(call), call.timeline.at) == (("你好", None), [])


@pytest.mark.parametrize(
    ("body", "text", "error_class", "message"),
    [
        ("raise RuntimeError('no\\nmodel')", "", "stream_error", "RuntimeError: no\\nmodel"),
        ("yield 'a'; raise ValueError('x')", "a", "stream_error", "ValueError: x"),
        ("yield 'a'; raise SystemExit(3)", "a", "stream_error", "SystemExit: 3"),
        ("raise KeyError; yield", "", "stream_error", "KeyError"),
        ("yield 'a'; yield b'b'", "a", "malformed", "a bytes"),
        ("yield 'a'; yield None", "a", "malformed", "None"),
        ("return 5", "", "malformed", "a int"),
        ("pass", "", "malformed", "returned None"),
        ("return {'a': 1}", "", "malformed", "a dict"),
        ("yield 'x' * 5_000_000", "", "malformed", "5000000 characters"),
        ("yield ''", "", "empty", "no text"),
        ("return ''", "", "empty", "no text"),
        ("yield 'a\\ud800'", "a?", None, ""),
        ("import os; yield 'a'; os._exit(7)", "a", "stream_error", "ended"),
        ("print('{broken'); yield 'a'", "a", None, ""),
        ("import sys; sys.stdin.read(); yield 'a'", "a", None, ""),
    ],
)
def test_what_a_function_may_do(
    user: Callable[..., User], body: str, text: str, error_class: str | None, message: str
) -> None:
    call = user(f"def query_model(prompt, max_resp_tokens):\n    {body}").call()
    assert outcome(call) == (text, error_class)
    assert message in str(call.exchange.error or "")
    assert call.exchange.status is None


def test_what_fails_once_may_go_well_the_next_time_in_the_same_thread(user: Callable[..., User]) -> None:
    one = user("""
import threading
def query_model(prompt, n):
    if prompt == "bad":
        raise RuntimeError("once")
    yield str(threading.get_ident())
""")
    first, second = one.call(), one.call("bad")
    assert outcome(second)[1] == "stream_error"
    assert outcome(one.call()) == outcome(first), "a user's connections and thread-locals are kept"


@pytest.mark.parametrize(
    ("limits", "body", "error_class"),
    [
        ({"first_token": 0.2}, "time.sleep(60); yield 'a'", "first_token_timeout"),
        ({"stall": 0.2}, "yield 'a'; time.sleep(60); yield 'b'", "stall_timeout"),
        ({"total": 2.0}, "yield from iter(lambda: time.sleep(0.01) or 'a', '')", "total_timeout"),
    ],
)
def test_time_limits_hold_whatever_the_function_does(
    user: Callable[..., User], limits: dict[str, float], body: str, error_class: str
) -> None:
    one = user(f"import time\ndef query_model(prompt, n):\n    {body}", **limits)
    began = time.monotonic()
    call = one.call()
    assert outcome(call)[1] == error_class
    one.close()
    assert time.monotonic() - began < 20, "nobody waits for a function that hangs"


def test_a_function_that_was_given_up_is_closed_and_its_user_goes_on(user: Callable[..., User], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    one = user(
        f"""
import time
def query_model(prompt, n):
    try:
        while True:
            time.sleep(0.01 if prompt == "on" else 0.6)
            yield "a"
            if prompt == "on":
                return
    finally:
        if prompt != "on":
            open({str(closed)!r}, "w").close()
""",
        first_token=0.3,
    )
    assert outcome(one.call("stall"))[1] == "first_token_timeout"
    assert outcome(one.call("on")) == ("a", None), "another thread takes over"
    with gevent.Timeout(20):
        while not closed.exists() or one.transport.host.stuck:
            gevent.sleep(0.01)


def test_a_call_that_is_killed_leaves_nothing_behind(user: Callable[..., User]) -> None:
    one = user("import time\ndef query_model(prompt, n):\n    while True:\n        time.sleep(0.01)\n        yield 'a'")
    call = one.prepare()
    greenlet = gevent.spawn(call.run)
    while not call.timeline.at:
        gevent.sleep(0.001)
    greenlet.kill()
    assert not one.client.busy
    with gevent.Timeout(20):
        while one.transport.host.stuck:
            gevent.sleep(0.01)


def test_users_run_at_the_same_time(user: Callable[..., User]) -> None:
    """Each waits for all the others: one after another they would never come to an end."""
    source = "import threading\nall_there = threading.Barrier(8)\n"
    one = user(source + "def query_model(prompt, n):\n    all_there.wait()\n    yield 'a'", total=20.0)
    calls = [one.transport.client().call(_question()) for _ in range(8)]
    gevent.joinall([gevent.spawn(call.run) for call in calls])
    assert {outcome(call) for call in calls} == {("a", None)}


def _question() -> Request:
    wire = PROTOCOL.encode(QUESTION, Generation(model="m"))
    return request(PROTOCOL, Timeline(time.monotonic_ns()), wire=wire)


def test_a_large_prompt_and_many_pieces_pass(user: Callable[..., User]) -> None:
    one = user("def query_model(prompt, n):\n    yield str(len(prompt))\n    yield from ['x' * 1000] * n")
    text, error_class = outcome(one.call("你" * 500_000, max_tokens=3000))
    assert (text[:6], len(text), error_class) == ("500000", 3_000_006, None)


def test_the_documented_example_works(user: Callable[..., User], monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a connection that a Session keeps, and with pieces as the server sends them."""
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8"), re.DOTALL
    )

    def answer(peer: Peer) -> None:
        while request := peer.request():
            assert json.loads(request.partition(b"\r\n\r\n")[2]) == {"question": "hi", "limit": 5}
            peer.send(HEAD + chunk("你\n".encode()))
            time.sleep(0.05)
            peer.send(chunk("好\n".encode()) + END)

    with scripted(answer) as server:
        monkeypatch.setenv("MY_MODEL_URL", server.url)
        one = user(code)
        calls = [one.call(max_tokens=5), one.call(max_tokens=5)]
        assert [outcome(call) for call in calls] == [("你好", None)] * 2
        (peer,) = server.peers
        for call, first in zip(calls, (0, 2), strict=True):
            lateness = [at - sent for at, sent in zip(call.timeline.at, peer.sent[first:], strict=False)]
            assert all(0 <= late < 40_000_000 for late in lateness), "each piece came before the next was sent"


# The file


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = 1", "no function query_model"),
        ("query_model = 5", "no function query_model"),
        ("\nimport no_such_module", "line 2: ModuleNotFoundError"),
        ("def query_model(:", "SyntaxError"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("def query_model(prompt):\n    yield prompt", "must take"),
        ("async def query_model(prompt, n):\n    yield prompt", "async"),
        ("import os\nos._exit(3)", "its process ended"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words(user: Callable[..., User], source: str, why: str) -> None:
    with pytest.raises(OptionError, match=why) as caught:
        user(source)
    assert "--query-model" in str(caught.value)


def test_a_file_that_takes_too_long_to_load_is_refused(user: Callable[..., User]) -> None:
    with pytest.raises(OptionError, match="not loaded within 1 s"):
        user("import time\ntime.sleep(60)", total=1.0)


def test_the_file_is_loaded_once_until_it_changes(user: Callable[..., User], tmp_path: Path) -> None:
    source = "import os\ndef query_model(prompt, n):\n    return str(os.getpid())"
    first = user(source)
    again = User(tmp_path / "my_model.py")
    assert outcome(first.call()) == outcome(again.call())
    again.close()
    (tmp_path / "my_model.py").write_text(source.replace("str(", "'new ' + str("))
    changed = User(tmp_path / "my_model.py")
    assert outcome(changed.call())[0].startswith("new ")
    changed.close()


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"protocol": "custom"}, "--protocol custom needs --query-model"),
        ({"query_model": __file__}, "--query-model needs --protocol custom"),
        ({"protocol": "custom", "query_model": "/no/such.py"}, "no such file"),
        ({"protocol": "custom", "query_model": __file__, "temperature": "0.5"}, "--temperature has no effect"),
        ({"protocol": "custom", "query_model": __file__, "transport": "portable"}, "--transport has no effect"),
    ],
)
def test_options_that_contradict_each_other_are_refused(raw: dict[str, str], problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        options.parse(raw)


def test_the_doctor_asks_the_function_and_names_what_is_wrong_with_it(tmp_path: Path) -> None:
    def doctor(source: str) -> str:
        (tmp_path / "my_model.py").write_text(source)
        command = [sys.executable, "-m", "tokenswarm", "doctor", "--protocol", "custom", "--query-model", "my_model.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    assert re.search(r"ok +target +custom: my_model.py answers", doctor("def query_model(p, n):\n    yield 'a'"))
    assert re.search(r"fail +target +.*no function query_model", doctor("x = 1"))


# With Locust


def test_a_run_without_a_host_or_a_server(tmp_path: Path) -> None:
    """In a process that nobody has patched; one request in five fails."""
    (tmp_path / "beside.py").write_text("PIECES = ['a', 'b', 'c']\n")
    (tmp_path / "my_model.py").write_text(
        """
import itertools, sys, time
assert "gevent" not in sys.modules  # a client that threads share would break under its patches
from beside import PIECES
numbers = itertools.count()
def query_model(prompt, max_resp_tokens):
    assert isinstance(prompt, str) and max_resp_tokens in (1, 50)
    time.sleep(0.02)
    for piece in PIECES:
        yield piece
        if next(numbers) % 15 == 14:
            raise ConnectionError("model\\nlost")
        time.sleep(0.005)
"""
    )
    options = ("--protocol", "custom", "--query-model", "my_model.py", "--output-tokens", "50")
    with_users = ("-u", "4", "-r", "4", "-t", "3s", "--save-responses")
    run = headless(tmp_path, "", *options, *with_users, exit_code=None)
    rows = read_rows(run.run_dir)
    good = [row for row in rows if row["status"] == "ok"]
    bad = [row for row in rows if row["status"] == "failed"]
    assert len(good) > 20, run.output
    assert {(row["chunks"], row["clock"], row["transport"], row["http_status"]) for row in good} == {
        ("3", "user", "function", "")
    }
    assert {row["name"] for row in rows} == {"query_model"}
    assert min(float(row["ttft_ms"]) for row in good) >= 20
    assert {(row["error_class"], row["error"]) for row in bad} == {("stream_error", "ConnectionError: model\\nlost")}
    target = run.json("run.json")["target"]
    assert (target["host"], target["protocol"], target["simulator"]) == ("custom: my_model.py", "custom", False)
    assert "SIMULATOR" not in run.output
    assert (run.run_dir / "report.html").exists()


def test_a_function_that_hangs_does_not_block_the_end_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text(
        "import time\ndef query_model(prompt, n):\n    if n > 1:\n        time.sleep(600)\n    yield 'a'\n"
    )
    options = ("--protocol", "custom", "--query-model", "my_model.py", "-u", "2", "-r", "2")
    run = headless(tmp_path, "", *options, "-t", "1s", "--stop-timeout", "1", exit_code=None)
    assert [row["status"] for row in run.rows()] == ["incomplete"] * 2, run.output


def test_a_run_is_refused_where_there_is_no_such_function(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text("x = 1\n")
    run = headless(tmp_path, "", "--protocol", "custom", "--query-model", "my_model.py", exit_code=2)
    assert "there is no function query_model(prompt, max_resp_tokens) in it" in run.output
    assert not run.run_dir.exists()
