"""A task of one's own: a poem, then its translation, as two turns of one conversation; and listeners to our events.

    locust -f locustfiles/poem.py --headless --users 20 --run-time 60s --host http://SERVER:8000

Each turn has a line of its own in Locust's tables, and a row a request in requests.csv.
"""

from collections import Counter
from typing import Any

from locust import events, task

from tokenswarm.users import ChatUser, Message

written: Counter[str] = Counter()
slowest: dict[str, float] = {}


class Poet(ChatUser):
    """Asks for a poem and, if one came, for its translation."""

    @task
    def write(self) -> None:
        messages: list[Message] = [{"role": "user", "content": "Write four lines about rain."}]
        poem = self.chat(messages, name="poem", max_tokens=80)
        if poem.ok:
            messages += [{"role": "assistant", "content": poem.text}, {"role": "user", "content": "Now in Chinese."}]
            self.chat(messages, name="translation", max_tokens=80)


def listen(environment: Any, **_: Any) -> None:
    """Two events beside Locust's own: the first token as it comes, the output tokens when the reply has ended."""

    def first_token(name: str, ttft_ms: float, **_: Any) -> None:
        slowest[name] = max(ttft_ms, slowest.get(name, 0.0))

    def output_tokens(name: str, tokens: int, **_: Any) -> None:
        written[name] += tokens

    def tell(**_: Any) -> None:
        for name, tokens in written.items():
            print(f"{name}: {tokens} tokens, slowest first token after {slowest.get(name, 0.0):.0f} ms")

    environment.events.first_token.add_listener(first_token)
    environment.events.output_tokens.add_listener(output_tokens)
    environment.events.test_stop.add_listener(tell)


events.init.add_listener(listen)
