"""The locustfiles that every server is asked with, written to a file of the test's own."""

from __future__ import annotations

from pathlib import Path
from string import Template

from locust_process import LocustProcess, headless

from conformance.server import Running, Server

SHORT = """
import itertools
from tokenswarm.users import ChatUser
from locust import task

NUMBERS = itertools.count(1)


class Asking(ChatUser):
    @task
    def ask(self):
        self.chat(f"{next(NUMBERS)} is my number. Tell me about yours.")
"""

MISBEHAVING = """
import gevent
from locust import events, task
from tokenswarm.users import ChatUser


class Enough(gevent.Timeout):
    pass


@events.init.add_listener
def on_init(environment, **_):
    @environment.events.first_token.add_listener
    def on_first_token(user, name, **_):
        if name == "cancelled":
            gevent.kill(user.asking, Enough())


class Misbehaving(ChatUser):
    @task
    def misbehave(self):
        self.asking = gevent.getcurrent()
        self.chat("Hello.", name="unknown model", model="no-such-model", max_tokens=5)
        self.chat("Hello.", name="bad parameter", max_tokens=5, extra_body=$bad_parameter)
        try:
            self.chat("Tell me everything.", name="cancelled", max_tokens=$long, extra_body=$long_body)
        except Enough:
            pass
        self.chat("Hello.", name="afterwards", max_tokens=5)
        self.environment.runner.quit()
"""

TIMED = (
    SHORT
    + """

import json
from tokenswarm.protocols.openai_chat import OpenAIChat, OpenAIChatDecoder


class Listening(OpenAIChatDecoder):
    def __init__(self):
        self.times = []

    def decode(self, event):
        if event.data.startswith(b"{"):
            chunk = json.loads(event.data)
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                self.times.append(chunk["timings"]["predicted_ms"])
        else:
            print("TIMED", json.dumps(self.times), flush=True)
        return super().decode(event)


OpenAIChat.decoder = lambda self: Listening()
"""
)
"""Says for each stream when llama.cpp had made each token, by its own clock."""


def run(
    server: Server,
    running: Running,
    folder: Path,
    *options: str,
    text: str = SHORT,
    host: str | None = None,
    exit_code: int | None = 0,
    **values: object,
) -> LocustProcess:
    """A headless run of a scenario, `$name` in it replaced by the values; to the server, if no other host is given."""
    env = {} if server.key is None else {"LLM_API_KEY": server.key}
    asked = ("--model", server.model, *options)
    locustfile = _write(folder, text, **values)
    return headless(folder, host or running.url, *asked, locustfile=locustfile, env=env, exit_code=exit_code)


def _write(folder: Path, text: str, **values: object) -> Path:
    path = folder / "scenario.py"
    path.write_text(Template(text).substitute({name: repr(value) for name, value in values.items()}))
    return path
