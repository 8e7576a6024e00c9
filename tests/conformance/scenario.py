"""The locustfiles that every server is asked with, written to a file of the test's own."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

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


def write(folder: Path, text: str, **values: Any) -> Path:
    """The locustfile with `$name` replaced by the values."""
    path = folder / "scenario.py"
    path.write_text(Template(text).substitute({name: repr(value) for name, value in values.items()}))
    return path
