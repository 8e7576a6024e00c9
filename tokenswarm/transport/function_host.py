"""The process in which `query_model` runs: plain Python, without gevent and apart from the event loop that counts.

    python -m tokenswarm.transport.function_host FILE

Lines of JSON come in by stdin and go out by stdout: what it is told is in `main`, what it says in `_Mouth`. Each user
of the load has a thread here, so a user's connections and thread-locals are kept from request to request. The process
ends with its stdin.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

FUNCTION: Final = "query_model"
MOST_CHARACTERS: Final = 4 * 1024 * 1024
"""Of one piece, or of a text that is returned whole."""


class Refused(Exception):
    """The file cannot be used; the text says why."""


class _NotText(Exception):
    """The function gave something else than text."""


class _Mouth:
    """Says `[call, monotonic nanoseconds, what, text]`, a line each, from any thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._shown = False

    def say(self, call: int, what: str, text: str = "", at: int | None = None) -> None:
        """`at`: when it happened, if not now. What: loaded, refused, called, piece, whole, done, error, not_text."""
        now = time.monotonic_ns() if at is None else at
        left = memoryview(json.dumps([call, now, what, text.encode("utf-8", "replace").decode()]).encode() + b"\n")
        with self._lock:
            try:
                while left:
                    left = left[os.write(self._fd, left) :]
            except OSError:  # nobody listens any more
                os._exit(0)

    def say_error(self, call: int, error: BaseException) -> None:
        """The first one's traceback is shown as well, for whoever wrote the function."""
        if not self._shown:
            self._shown = True
            print(f"{FUNCTION} raised; later errors are in the results only:", file=sys.stderr)
            traceback.print_exception(error)
        self.say(call, "error", described(error))


class _Lane:
    """One user's thread. `stop` ends it at the next piece; a function that yields none cannot be stopped."""

    def __init__(self, function: Callable[[str, int], Any], mouth: _Mouth) -> None:
        self.stopped = False
        self.calls: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._function = function
        self._mouth = mouth
        threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        self.stopped = True
        self.calls.put(None)

    def _work(self) -> None:
        while (asked := self.calls.get()) is not None:
            call = asked["call"]
            try:
                self._answer(call, **asked["arguments"])
            except _NotText as error:
                self._mouth.say(call, "not_text", str(error))
            except BaseException as error:  # SystemExit as well: it is one request's failure
                self._mouth.say_error(call, error)

    def _answer(self, call: int, prompt: str, max_resp_tokens: int, stream: bool) -> None:
        say = self._mouth.say
        say(call, "called")
        result = self._function(prompt, max_resp_tokens)
        if isinstance(result, str):
            say(call, "whole", _text(result))
        elif stream:
            for at, piece in self._pieces(result):
                say(call, "piece", piece, at)
            say(call, "done")
        else:
            say(call, "whole", "".join(piece for _, piece in self._pieces(result)))

    def _pieces(self, result: Any) -> Iterator[tuple[int, str]]:
        """What it yields, each with the time at which it did; empty ones are left out."""
        if not hasattr(result, "__iter__") or isinstance(result, (bytes, dict)):
            raise _NotText(f"{FUNCTION} returned {_kind(result)}; let it yield pieces of text, or return a text")
        try:
            for piece in result:
                at = time.monotonic_ns()
                if self.stopped:
                    return
                if _text(piece):
                    yield at, piece
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


def main(path: str) -> None:
    """Load the file, then answer calls until stdin ends.

    It is told `{"lane", "call", "arguments"}`: call the function in this user's thread; or `{"stop": lane}`.
    """
    ears, mouth = os.fdopen(os.dup(0), "rb"), _Mouth(os.dup(1))
    # What the function reads and prints is not ours.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        function = load(path)
    except Refused as refused:
        mouth.say(0, "refused", str(refused))
        return
    mouth.say(0, "loaded")
    lanes: dict[int, _Lane] = {}
    for line in ears:
        told = json.loads(line)
        if "stop" in told:
            if lane := lanes.pop(told["stop"], None):
                lane.stop()
            continue
        number = told["lane"]
        if number not in lanes:
            lanes[number] = _Lane(function, mouth)
        lanes[number].calls.put(told)


def load(path: str) -> Callable[[str, int], Any]:
    """The function `query_model` in a file. Raises Refused."""
    file = Path(path).resolve()
    sys.path.insert(0, str(file.parent))  # as for a script: what lies beside it can be imported
    spec = importlib.util.spec_from_file_location("query_model_file", file)
    if spec is None or spec.loader is None:
        raise Refused("not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f"line {lines[-1]}: " if lines else ""
        raise Refused(f"it cannot be loaded: {where}{described(error)}") from None
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise Refused(f"there is no function {FUNCTION}(prompt, max_resp_tokens) in it")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise Refused(f"{FUNCTION} is an async function; make it a plain one, each user has a thread of its own")
    try:
        inspect.signature(function).bind("", 1)
    except TypeError as error:
        raise Refused(f"{FUNCTION} must take (prompt, max_resp_tokens), by position: {error}") from None
    except ValueError:  # written in C: the first call will tell
        pass
    return function  # type: ignore[no-any-return]


def described(error: BaseException) -> str:
    """Type and message."""
    name = type(error).__name__
    try:
        message = str(error)
    except Exception:  # whatever a __str__ of the user's raises
        message = ""
    return f"{name}: {message[:1000]}" if message else name


def _text(piece: Any) -> str:
    if not isinstance(piece, str):
        raise _NotText(f"{FUNCTION} yielded {_kind(piece)}; pieces must be text")
    if len(piece) > MOST_CHARACTERS:
        raise _NotText(f"{FUNCTION} gave a text of {len(piece)} characters; at most {MOST_CHARACTERS} at once")
    return piece


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)  # threads that do not come back are not waited for
