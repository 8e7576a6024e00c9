"""What the simulator says, and how it counts: a seeded tape of tokens, and an estimate of the tokens of a prompt."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

import msgspec

TAPE_SENTENCES = 1024

_ENGLISH = """The cache keeps every key and value of the prompt, so the next step reads only one new token.
A larger batch makes each step slower, but the whole server faster.
Please check the third line of the table, because the units are milliseconds and not seconds.
In short, latency is what one user feels and throughput is what the owner pays for.
You can think of the scheduler as a waiter who never lets a table stand empty.
If the queue grows, the first answer comes later even though nothing is broken.
Here is a short list of the steps that we would take in your place.
The quick brown fox jumps over the lazy dog while the old clock counts the hours.
She said "measure twice, cut once" and opened the notebook again.
Most of the time is spent moving weights from memory, not multiplying them.
It depends on the length of the answer, the size of the model and the patience of the reader.
To reproduce the result, start with the same seed and send the same requests.
Rain fell on the harbour all night, and in the morning the boats were gone.
There are three reasons for this, and the second one is easy to miss.
A good test says what it expects before it looks."""

_CHINESE = """首先,我们需要确认服务器的延迟是否稳定。
这个问题可以分为三个部分来回答。
随着并发用户数的增加,每个词的生成时间会变长。
请注意,首个词的等待时间包括排队和预填充两个阶段。
春天的早晨,湖面上有一层薄薄的雾。
如果您愿意,我可以继续解释其中的细节。
总的来说,批处理越大,吞吐量越高,但单个用户会感到更慢。
他打开窗户,听见远处传来火车的声音。
测试的结果应当可以重复,否则没有意义。
模型先思考,再回答,最后给出结论。"""

_EMOJI = ("🙂", "🚀", "✨", "👍🏽", "🎉", "📈")

_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+")
_ENGLISH_TOKEN = re.compile(r'[A-Za-z]+|[.,"]')


def estimate_tokens(texts: Iterable[str]) -> int:
    """Tokens of a prompt by a simple rule: one for each CJK character, one for every 4 others begun; at least 1."""
    wide = other = 0
    for text in texts:
        narrow = len(text) if text.isascii() else len(_WIDE.sub("", text))
        other += narrow
        wide += len(text) - narrow
    return max(1, wide + (other + 3) // 4)


def _english(sentence: str) -> list[str]:
    tokens = []
    for match in _ENGLISH_TOKEN.finditer(sentence):
        before = sentence[match.start() - 1 : match.start()]
        tokens.append(match[0] if before not in ("", " ") else " " + match[0])
    return tokens


def _chinese(sentence: str, draw: random.Random) -> list[str]:
    tokens = []
    at = 0
    while at < len(sentence):
        size = draw.choice((1, 1, 2))
        tokens.append(sentence[at : at + size])
        at += size
    return tokens


class Tape:
    """An endless loop of tokens. A reply is a stretch of it that begins with a sentence; the same seed, the same tape.

    `encoded` holds each token as the inside of a JSON string in UTF-8; `lengths` its Unicode code points.
    """

    def __init__(self, seed: int) -> None:
        draw = random.Random(f"tape:{seed}")
        english, chinese = _ENGLISH.split("\n"), _CHINESE.split("\n")
        self.tokens: list[str] = []
        self.starts: list[int] = []
        for _ in range(TAPE_SENTENCES):
            self.starts.append(len(self.tokens))
            if draw.random() < 0.6:
                self.tokens += _english(draw.choice(english))
            else:
                self.tokens += _chinese(draw.choice(chinese), draw)
            if draw.random() < 0.15:
                self.tokens.append(draw.choice(_EMOJI))
            if draw.random() < 0.1:
                self.tokens.append("\n\n")
        self.encoded = [msgspec.json.encode(token)[1:-1] for token in self.tokens]
        self.lengths = [len(token) for token in self.tokens]
        self.size = len(self.tokens)

    def text(self, start: int, count: int) -> str:
        """`count` tokens from position `start` on, joined."""
        return "".join(self.tokens[at % self.size] for at in range(start, start + count))

    def piece(self, start: int, count: int) -> tuple[bytes, int]:
        """`count` tokens from position `start` on: the inside of a JSON string, and its Unicode code points."""
        size = self.size
        if count == 1:
            return self.encoded[start % size], self.lengths[start % size]
        places = [at % size for at in range(start, start + count)]
        return b"".join([self.encoded[at] for at in places]), sum([self.lengths[at] for at in places])
