"""All our options, parsed, as one value."""

from __future__ import annotations

from typing import Any

import msgspec

from tokenswarm.load.leaving import After
from tokenswarm.protocols.websocket_chat import Shape
from tokenswarm.workload.lengths import Lengths


class PrefixPool(msgspec.Struct, frozen=True):
    """How many different prefixes there are in common, and the share of prompts (0 to 1) that has one of them."""

    count: int = 1
    share: float = 1.0


class Ended(msgspec.Struct, frozen=True):
    """A settling time that is over when so many requests have ended since the users were there."""

    requests: int


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Our options, parsed. Durations are seconds. The defaults are those of an option that was not given."""

    # target.py
    protocol: str = "openai-chat"
    query_model: str | None = None
    """The file with the function that answers where the protocol is `custom`."""
    model: str | None = None
    transport: str = "fast"
    insecure: bool = False
    ca_bundle: str | None = None
    client_cert: tuple[str, ...] = ()
    """Our certificate's file, and its key's where that is another."""
    proxy: str | None = None
    """As given, variables not expanded."""
    headers: tuple[str, ...] = ()
    """As given, variables not expanded."""
    extra_body: dict[str, Any] = {}
    stream: bool = True
    keep_alive: bool = True
    check: bool = True

    # limits.py
    request_timeout: float = 300.0
    connect_timeout: float = 10.0
    first_token_timeout: float | None = None
    stall_timeout: float | None = None
    retries: int = 0

    # websocket.py
    ws: Shape = Shape()
    """How a server over a WebSocket is asked, and how it answers."""

    # dataset.py
    dataset: str | None = None
    dataset_column: str | None = None
    dataset_order: str | None = None
    """None: a file's own order, and the bundled questions shuffled."""
    dataset_once: bool = False
    dataset_errors: str = "skip"
    dataset_replies: str = "server"
    """Whose replies a conversation of the dataset carries along."""

    # prompts.py
    system_prompt: str | None = None
    tokenizer: str | None = None
    """A tokenizer.json, or the directory that holds it; None: lengths are estimates."""
    input_tokens: Lengths | None = None
    shared_prefix_tokens: int | None = None
    prefix_pool: PrefixPool = PrefixPool()
    unique_prompts: bool = False
    output_tokens: Lengths | None = None
    ignore_eos: bool = False
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0

    # arrivals.py
    arrivals: str = "closed"
    """As given, as is `think_time`; load/ has what they mean."""
    rate_per_user: float = 1.0
    time_scale: float = 1.0
    max_in_flight: int | None = None
    think_time: str | None = None

    # steps.py
    steps: tuple[int, ...] = ()
    """The users of each."""
    step_time: float = 60.0
    warmup: float | Ended | None = None

    # cancelling.py
    cancel_rate: float | None = None
    cancel_after: After | None = None
    patience: float | None = None

    # ends.py
    requests: int | None = None
    """Over all workers together; so is the next."""
    token_budget: int | None = None

    # goals.py
    slo: str | None = None
    """As given; so is the next. Parsed by slo.py."""
    goodput: str | None = None
    find_capacity: bool = False
    fail_on: str | None = None

    # record.py
    run_dir: str | None = None
    label: str | None = None
    save_responses: bool = False
    lang: str = "en"
    hardware: tuple[str, ...] = ()
    """As given, variables not expanded; so is the next."""
    server_metrics: tuple[str, ...] = ()
