"""The verdict's rules: data, one entry a rule, with the metrics that it touches, its thresholds, and what to do.

Not here: how they are applied (`verdict.py`), and how the values are measured (`results/figures/evidence.py`).
"""

from __future__ import annotations

from typing import Final

import msgspec

TTFT: Final = "ttft"
TPOT: Final = "tpot"
ITL: Final = "itl"
E2E: Final = "e2e"
THROUGHPUT: Final = "throughput"
CONCURRENCY: Final = "concurrency"
LATENCIES: Final = (TTFT, TPOT, ITL, E2E)
LOAD: Final = (THROUGHPUT, CONCURRENCY)
METRICS: Final = (*LATENCIES, *LOAD)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the verdict's table.

    A value at or past `degraded` or `invalid` fires (below them, where `low_is_bad`); at or past `note` it is told but
    changes no level. `floor` is absolute: whatever the value, the rule is silent unless the measured absolute
    difference exceeds it, so that 1 ms against a TTFT of 10 ms is not a scandal.
    """

    name: str
    metrics: tuple[str, ...]
    says: str
    """What was found; `{value}` stands for the measured number, `{absolute}` for its absolute size in milliseconds (put
    behind the value if it has no place of its own), `{subject}` for what was looked at."""
    advice: str
    unit: str = "share"
    """`share` (printed as per cent), `ms`, or `count`."""
    note: float | None = None
    degraded: float | None = None
    invalid: float | None = None
    low_is_bad: bool = False
    floor: float = 0.0
    """Milliseconds."""


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="no_ok_rows",
        metrics=METRICS,
        says="no request that was due in the measured window succeeded",
        advice="Nothing was measured. Look at the errors table; try one request by hand against the same URL.",
        unit="count",
        invalid=1,
        low_is_bad=True,
    ),
    Rule(
        name="no_steady_window",
        metrics=METRICS,
        says="there is no steady window, so the figures cover the whole run, ramp and drain included",
        advice="Run longer, spawn faster or set a shorter --warmup, so that load stays at its target for a while.",
        unit="count",
        invalid=1,
        low_is_bad=True,
    ),
    Rule(
        name="rows_unaccounted",
        metrics=METRICS,
        says="{value} requests that were started have no row",
        advice="The slowest requests are the likeliest to be missing. Let the run end by itself, or stop it with "
        "Ctrl-C once, and check that every worker stayed alive.",
        unit="count",
        invalid=1,
    ),
    Rule(
        name="rows_lost",
        metrics=METRICS,
        says="{value} rows could not be written or read back",
        advice="Check free space and errors of the disk that holds the run directory, then run again.",
        unit="count",
        invalid=1,
    ),
    Rule(
        name="worker_lost",
        metrics=METRICS,
        says="{subject} fell silent before the load ended",
        advice="Look at the log of {subject}; its last second of rows may be missing. Run again with it alive.",
        unit="count",
        invalid=1,
    ),
    Rule(
        name="clock_uncertain",
        metrics=LOAD,
        says="the time of {subject} is known to ±{value} only",
        advice="Round trips to the master take that long, so what its workers did at the same time is known no better. "
        "Durations are not touched. Give master and workers cores of their own, and a quicker network between them.",
        unit="ms",
        degraded=50.0,
    ),
    Rule(
        name="clock_off",
        metrics=(),
        says="the clock of {subject} is {value} off the master's",
        advice="Times in this run are corrected. Those in Locust's own tables are not: set the clock by NTP.",
        unit="ms",
        note=100.0,
    ),
    Rule(
        name="intervals_missing",
        metrics=(ITL, THROUGHPUT),
        says="{value} one-second intervals of the workers never arrived",
        advice="Throughput and ITL miss what happened in them. Check the connection between workers and master.",
        unit="count",
        invalid=1,
    ),
    Rule(
        name="not_ended",
        metrics=METRICS,
        says="the run was not ended properly",
        advice="It was killed or crashed, so requests in flight at that moment may have no row. Stop runs with Ctrl-C.",
        unit="count",
        degraded=1,
    ),
    Rule(
        name="few_requests",
        metrics=(TTFT, TPOT, E2E, THROUGHPUT),
        says="requests that succeeded in the measured window: only {value}",
        advice="Their percentiles are guesses, and p95 wants 72 of them, p99 368. Run longer, or with more users.",
        unit="count",
        degraded=36,
        invalid=6,
        low_is_bad=True,
    ),
    Rule(
        name="cut_by_the_stop",
        metrics=(TTFT, E2E),
        says="the end of the run cut {value} of the requests due, and their latencies are missing",
        advice="The longest are the likeliest to be cut, so what is left looks fast. Raise --stop-timeout.",
        degraded=0.01,
        invalid=0.05,
    ),
    Rule(
        name="mostly_failed",
        metrics=LATENCIES,
        says="{value} of the requests due failed, most of them as {subject}: the latencies are those of the others",
        advice="Look at the errors first. Users that fail ask again at once; give them a wait_time, or ask for fewer.",
        note=0.01,
        degraded=0.20,
        invalid=0.50,
    ),
    Rule(
        name="user_exceptions",
        metrics=METRICS,
        says="the locustfile's own code failed {value} times, first with: {subject}",
        advice="The users did not do what was meant. The traceback is in locust_exceptions.csv.",
        unit="count",
        degraded=1,
    ),
    Rule(
        name="settling_cut",
        metrics=(TTFT, E2E, THROUGHPUT),
        says="the settling time left out is {value} of what it should be ({subject}): the run, or its steps, are short",
        advice="The start may still be in the figures. Run at least three times as long as that, or set --warmup.",
        note=0.999,
        degraded=0.3,
        low_is_bad=True,
    ),
    Rule(
        name="stopped_early",
        metrics=(),
        says="the run was stopped after {value} of the run time that was asked for",
        advice="Somebody or something ended it. What was measured until then stands.",
        note=0.98,
        low_is_bad=True,
    ),
    Rule(
        name="ttft_bounds",
        metrics=(TTFT,),
        says="the two bounds of TTFT {subject} lie {value} apart",
        advice="The client was too busy to tell when first tokens came. Give it a core of its own, or fewer users.",
        degraded=0.02,
        invalid=0.10,
        floor=1.0,
    ),
    Rule(
        name="send_delay",
        metrics=(TTFT,),
        says="start → sent {subject} is {value} of the median TTFT",
        advice="That part of TTFT is connecting and sending, not the server. See the pool, DNS, TCP, TLS and send "
        "columns; keep connections alive, give the client a core of its own, or quote TTFT from sent.",
        degraded=0.02,
        invalid=0.10,
        floor=1.0,
    ),
    Rule(
        name="in_flight_share",
        metrics=LOAD,
        says="requests in flight are {value} of the users (closed loop, no think time: {absolute} idle a request)",
        advice="The client did not keep the asked load up. Give it a core of its own, spread the load with --processes "
        "or more workers, or look for failing connections.",
        degraded=0.98,
        invalid=0.95,
        low_is_bad=True,
        floor=1.0,
    ),
    Rule(
        name="users_share",
        metrics=LOAD,
        says="{value} of the asked users were there",
        advice="Some never started, or stopped by themselves, or were on a worker that is lost. Look at the log.",
        degraded=0.98,
        invalid=0.95,
        low_is_bad=True,
    ),
    Rule(
        name="spawn_rate",
        metrics=(),
        says="users were spawned at {value} of the asked rate ({subject})",
        advice="The ramp was slower than asked; the steady window starts when all users run. Ask for a lower "
        "--spawn-rate, or spread the load with --processes or more workers.",
        note=0.8,
        low_is_bad=True,
    ),
    Rule(
        name="no_steady_state",
        metrics=(TTFT, E2E, *LOAD),
        says="no steady state: from the first half of the window to the second {subject}, by {value}",
        advice="If latency or requests in flight grew, the server is overloaded: ask for less. If they fell, it was "
        "still warming up: set a longer --warmup. Either way the figures would be others in a longer run.",
        degraded=0.20,
        floor=10.0,
    ),
    Rule(
        name="sent_share",
        metrics=LOAD,
        says="open loop: {value} of the requests due were sent",
        advice="The others found no place under --max-in-flight, so less was asked of the server than was planned. "
        "Lower the rate to what it can serve, or allow more in flight.",
        degraded=0.99,
        invalid=0.95,
        low_is_bad=True,
    ),
    Rule(
        name="schedule_lag",
        metrics=(TTFT, E2E, CONCURRENCY),
        says="open loop: requests started {value} late (p99)",
        advice="The client lags behind its schedule. Give it more CPU; ttft_due_ms includes the delay.",
        unit="ms",
        degraded=5.0,
        invalid=50.0,
    ),
    Rule(
        name="tiny_outputs",
        metrics=(TPOT, ITL, E2E, THROUGHPUT),
        says="{value} of the answers have at most one token, though more was asked",
        advice="The server hardly generates. Look at the prompts, the chat template and the stop tokens.",
        degraded=0.01,
        invalid=0.10,
    ),
    Rule(
        name="short_outputs",
        metrics=(E2E, THROUGHPUT),
        says="{value} of the answers are less than half as long as asked, though ignore_eos was asked for",
        advice="The server stops early and so looks fast. Check that it supports ignore_eos, and its length limits.",
        degraded=0.01,
        invalid=0.10,
    ),
    Rule(
        name="early_stops",
        metrics=(E2E, THROUGHPUT),
        says="{value} of the answers ended before half of the allowed length",
        advice="Shorter answers look faster: compare runs by output length too, or fix the length with ignore_eos.",
        note=0.10,
    ),
    Rule(
        name="usage_disagrees",
        metrics=(TPOT, THROUGHPUT),
        says="of {value} of the answers the server's usage tells fewer tokens than chunks came, or more than their "
        "text can have ({subject})",
        advice="Token figures rest on that usage. Compare one answer by hand; look at how the server counts reasoning.",
        degraded=0.01,
        invalid=0.10,
    ),
    Rule(
        name="usage_zero",
        metrics=(TPOT, THROUGHPUT),
        says="of {value} of the answers the server's usage tells no output tokens, though output came",
        advice="Their chunks are counted instead, or their text by --tokenizer. Look at what the server's usage means.",
        degraded=0.01,
    ),
    Rule(
        name="usage_against_counter",
        metrics=(TPOT, THROUGHPUT),
        says="the server's own counter of generated tokens is {value} off its usage ({subject})",
        advice="If it counted more, somebody else used the server, or its usage leaves tokens out. If it counted "
        "fewer, the page is not that of every server (--server-metrics), or usage tells too many.",
        degraded=0.02,
    ),
    Rule(
        name="user_clock",
        metrics=(TTFT, ITL, TPOT),
        says="{value} of the requests were timed by the client's own clock, not the kernel's",
        advice="A busy client adds its own delay to those. Use the fast transport on Linux, or keep the client idle.",
        note=1e-9,
    ),
    Rule(
        name="clock_jump",
        metrics=LATENCIES,
        says="the wall clock of {subject} was set by up to {value} within a second",
        advice="Arrivals of that moment have bounds only. Let NTP settle before a run, and slew rather than step.",
        unit="ms",
        degraded=0.5,
    ),
    Rule(
        name="cpu_steal",
        metrics=METRICS,
        says="the hypervisor took {value} of all processor time from the machine of {subject}",
        advice="While it does, nothing is stamped or sent. Use a machine with processors of its own.",
        degraded=0.01,
        invalid=0.05,
    ),
    Rule(
        name="cgroup_throttling",
        metrics=METRICS,
        says="the CPU limit of its container held {subject} back for {value} of the time",
        advice="It measured its own pauses, too. Raise the limit (cpu.max, --cpus), or take it away.",
        degraded=0.01,
        invalid=0.05,
    ),
    Rule(
        name="cpu_contention",
        metrics=(),
        says="{subject} waited {value} of the time for a processor that another program had",
        advice="Arrivals are the kernel's all the same, but sending and users are late. Give the client cores of its "
        "own (taskset), and run no model server beside it.",
        note=0.10,
    ),
    Rule(
        name="client_busy",
        metrics=(),
        says="the event loop of {subject} was busy {value} of the time",
        advice="Arrivals are the kernel's all the same, but there is no room for more users. Spread the load with "
        "--processes or more workers.",
        note=0.95,
    ),
    Rule(
        name="client_too_busy",
        metrics=LOAD,
        says="the event loop of {subject} was busy {value} of the time, and whether users waited for it cannot be told",
        advice="The load may be less than was meant. Spread it with --processes or more workers.",
        degraded=0.95,
    ),
    Rule(
        name="busy_user_clock",
        metrics=LATENCIES,
        says="the event loop of {subject} was busy {value} of the time, and its own clock timed what arrived",
        advice="Its delays are in the latencies. Use the fast transport on Linux, or spread the load with --processes "
        "or more workers.",
        degraded=0.80,
        invalid=0.95,
    ),
    Rule(
        name="loop_blocked",
        metrics=LOAD,
        says="the event loop of {subject} stood still for up to {value}",
        advice="Something in the locustfile or a listener blocks: a long computation, or a library that gevent does "
        "not know. No request is sent meanwhile.",
        unit="ms",
        note=500.0,
        degraded=1000.0,
    ),
    Rule(
        name="ring_full",
        metrics=(TTFT, ITL),
        says="for {value} of the time {subject} did not take what had arrived, and it was left with the kernel",
        advice="Arrivals of then have bounds only. Python was too late: spread the load with --processes or more "
        "workers, and look for code that blocks.",
        note=1e-9,
        degraded=0.01,
    ),
    Rule(
        name="tcp_trouble",
        metrics=(*LATENCIES, THROUGHPUT),
        says="the kernel dropped, squeezed or held back what arrived at a client's machine {value} times ({subject})",
        advice="The client did not read in time, or memory for sockets is short (net.ipv4.tcp_rmem, tcp_mem). What is "
        "sent again comes late.",
        unit="count",
        degraded=1,
    ),
    Rule(
        name="tcp_trouble_nearby",
        metrics=(),
        says="the kernel squeezed or held back what arrived at a client's machine {value} times ({subject}), though "
        "the client left nothing unread",
        advice="Most likely it was for another program there. End it, or look for short memory (net.ipv4.tcp_mem).",
        unit="count",
        note=1,
    ),
    Rule(
        name="descriptors",
        metrics=LOAD,
        says="{subject} used {value} of the descriptors that it may have",
        advice="Beyond the limit connections fail. Raise it with ulimit -n, or spread the load over more workers.",
        degraded=0.95,
    ),
    Rule(
        name="ports",
        metrics=LOAD,
        says="the machine of {subject} has sockets for {value} of its local ports",
        advice="Without a free one connections fail. Keep connections alive, or widen net.ipv4.ip_local_port_range.",
        degraded=0.95,
    ),
    Rule(
        name="tokens_estimated",
        metrics=(TPOT, THROUGHPUT),
        says="tokens of {value} of the answers are counted as chunks, because the server told no usage",
        advice="Token figures are an estimate. Let the server report usage.",
        note=1e-9,
    ),
    Rule(
        name="several_levels",
        metrics=(),
        says="the figures mix {value} load levels",
        advice="Read the table of steps for each level by itself.",
        unit="count",
        note=2,
    ),
)

BY_NAME: Final = {rule.name: rule for rule in RULES}
