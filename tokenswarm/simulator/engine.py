"""Continuous batching as a latency model: who waits, who runs, and when the next tokens are due.

No clock, no socket and no task in here: instants come in as integers (nanoseconds of one monotonic clock) and go out as
integers, so that the model can be tested by itself. `pacing.py` runs it in real time.

Prefill is a first-come, first-served resource beside decoding: prompts are computed one after another, and each has a
fixed latency on top that does not keep the others waiting. Decoding goes in steps over the whole batch; a step's time
grows with the batch. A reply's first tokens go out at the first step boundary at or after the end of its prefill.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tokenswarm.simulator.prefix_cache import PrefixCache

NS_PER_MS = 1_000_000

Emit = Callable[[int, bool], None]
"""Called once a step with (tokens made, whether these are the last)."""


class QueueFull(Exception):
    """As many requests wait as are allowed to."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What a prompt and a step cost, in milliseconds; `jitter` is the coefficient of variation of each cost."""

    prefill_base_ms: float = 60.0
    prefill_per_token_ms: float = 0.02
    decode_base_ms: float = 15.0
    decode_per_seq_ms: float = 0.08
    jitter: float = 0.05

    def step_ms(self, batch: int) -> float:
        """One decode step over `batch` sequences, before jitter."""
        return self.decode_base_ms + self.decode_per_seq_ms * batch


class Sequence:
    """One reply in the making: `length` tokens after `input_tokens` of prompt, handed to `emit` as they are made.

    With a length of 0 (an embedding) there is one call of `emit`, with no tokens, at the step boundary after the
    prefill, which lasts from `prefill_ns` to `ready_ns`.
    """

    __slots__ = (
        "blocks",
        "cached_tokens",
        "cancelled",
        "emit",
        "input_tokens",
        "length",
        "made",
        "prefill_ns",
        "ready_ns",
    )

    def __init__(self, input_tokens: int, length: int, emit: Emit, blocks: list[tuple[int, int]] | None = None) -> None:
        """`blocks`: of its prompt, where there is a prefix cache."""
        if length < 0:
            raise ValueError(f"a reply cannot have {length} tokens")
        self.input_tokens = input_tokens
        self.length = length
        self.emit = emit
        self.blocks = blocks or []
        self.cached_tokens = 0
        self.made = 0
        self.prefill_ns = 0
        self.ready_ns = 0
        self.cancelled = False

    @property
    def footprint(self) -> int:
        """KV-cache slots it holds from admission to its end."""
        return self.input_tokens + self.length


class Engine:
    """The scheduler: a FIFO queue, a batch of at most `max_batch`, a KV cache of `kv_cache_tokens` slots.

    `max_queue` None lets any number wait. The same `seed` gives the same jitter for the same order of steps.
    """

    def __init__(
        self,
        latency: Latency,
        *,
        max_batch: int = 256,
        max_queue: int | None = None,
        kv_cache_tokens: int = 1_000_000,
        tokens_per_step: int = 1,
        prefix_cache: PrefixCache | None = None,
        seed: int = 0,
    ) -> None:
        self.latency = latency
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.kv_cache_tokens = kv_cache_tokens
        self.tokens_per_step = tokens_per_step
        self.prefix_cache = prefix_cache
        self.waiting: OrderedDict[Sequence, None] = OrderedDict()
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []
        self.kv_used = 0
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self._prefill_free_ns = 0
        self._random = random.Random(f"engine:{seed}")
        self._sigma = math.sqrt(math.log(1.0 + latency.jitter**2))

    @property
    def running(self) -> int:
        """Sequences that have a place in the batch, prefilling or decoding."""
        return len(self.prefilling) + len(self.decoding)

    def submit(self, sequence: Sequence, now_ns: int) -> None:
        """Start the prefill at once if there is a place, else wait in line. Raises QueueFull, ValueError if too big."""
        if sequence.footprint > self.kv_cache_tokens:
            raise ValueError(f"{sequence.footprint} tokens can never fit a KV cache of {self.kv_cache_tokens}")
        if not self.waiting and self._fits(sequence):
            self._admit(sequence, now_ns)
        elif self.max_queue is not None and len(self.waiting) >= self.max_queue:
            raise QueueFull(f"{len(self.waiting)} requests are waiting, and --max-queue is {self.max_queue}")
        else:
            self.waiting[sequence] = None

    def cancel(self, sequence: Sequence) -> None:
        """Make nothing more for it. Its place and its KV slots are free from the next step boundary on."""
        sequence.cancelled = True
        self.waiting.pop(sequence, None)

    def begin_step(self, start_ns: int) -> int | None:
        """When the step that starts at `start_ns` ends; None if there is nothing to do."""
        if self.decoding:
            return start_ns + self._cost_ns(self.latency.step_ms(len(self.decoding)))
        if self.prefilling:
            return max(start_ns, min(sequence.ready_ns for sequence in self.prefilling))
        return None

    def finish_step(self, due_ns: int) -> None:
        """Emit what the step that was due at `due_ns` has made, let go of what has ended, admit what waits."""
        self._join_batch(due_ns)
        ended = False
        made = 0
        for sequence in self.decoding:
            if sequence.cancelled:
                ended = True
                continue
            left = sequence.length - sequence.made
            count = min(self.tokens_per_step, left)
            sequence.made += count
            made += count
            ended = ended or count == left
            sequence.emit(count, count == left)
        self.generated_tokens += made
        if ended:
            self._release()
        while self.waiting:
            sequence = next(iter(self.waiting))
            if not self._fits(sequence):
                break
            del self.waiting[sequence]
            self._admit(sequence, due_ns)

    def _fits(self, sequence: Sequence) -> bool:
        return self.running < self.max_batch and self.kv_used + sequence.footprint <= self.kv_cache_tokens

    def _admit(self, sequence: Sequence, now_ns: int) -> None:
        if self.prefix_cache is not None:  # what is computed before it is there when its own turn comes
            # The last token is computed in any case: the first output comes from it.
            sequence.cached_tokens = min(self.prefix_cache.take(sequence.blocks), sequence.input_tokens - 1)
        to_compute = sequence.input_tokens - sequence.cached_tokens
        compute_ns = self._cost_ns(self.latency.prefill_per_token_ms * to_compute)
        sequence.prefill_ns = max(self._prefill_free_ns, now_ns)
        self._prefill_free_ns = sequence.prefill_ns + compute_ns
        sequence.ready_ns = self._prefill_free_ns + self._cost_ns(self.latency.prefill_base_ms)
        self.kv_used += sequence.footprint
        self.prompt_tokens += sequence.input_tokens
        self.prefilling.append(sequence)

    def _join_batch(self, due_ns: int) -> None:
        if not self.prefilling:
            return
        still = []
        for sequence in self.prefilling:
            if sequence.ready_ns <= due_ns or sequence.cancelled:
                self.decoding.append(sequence)
            else:
                still.append(sequence)
        self.prefilling = still

    def _release(self) -> None:
        kept = []
        for sequence in self.decoding:
            if sequence.cancelled or sequence.made == sequence.length:
                self.kv_used -= sequence.footprint
            else:
                kept.append(sequence)
        self.decoding = kept

    def _cost_ns(self, mean_ms: float) -> int:
        if self._sigma and mean_ms:  # lognormal with mean 1, so that jitter does not change the average speed
            mean_ms *= self._random.lognormvariate(-(self._sigma**2) / 2, self._sigma)
        return round(mean_ms * NS_PER_MS)
