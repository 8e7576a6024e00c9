"""A run of eleven requests, small enough to be worked out with a pencil, and every figure of its summary.

Two users, a worker each, steady from second 2 to second 12 after T0. Nothing here is computed by tokenswarm but what
`summarise` returns: each expected figure stands as a number, and where it comes from beside it.

          1    2    3    4    5    6    7    8    9   10   11   12   13
    w0    r1====== r2===     r4========     r6==           r8======           r10======
    w1                  r3=====     r5=========     r7================     r9(shed)  r11=====|cut
               |<--------------------- steady ---------------------->|<-- drain

Percentiles are of type 7: of n figures in order, counted from 0, the one at place (n - 1) * p, or that share of the way
between the two around it.
"""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import run_directory_maker as maker
from differences import differences
from run_directory_maker import T0, Record

from tokenswarm import histogram
from tokenswarm.results import read, summarise

NO_SURE_PERCENTILE = ["p50", "p90", "p95", "p99", "p99.9"]  # of fewer than 6 figures
ONLY_THE_MEDIAN = NO_SURE_PERCENTILE[1:]  # 6 to 35 of them


def answered(index: int, worker: int, due: float, ttft: float, e2e: float, tokens: int, **fields: Any) -> Record:
    """An ok request that started when it was due, sent after 1 ms for a connection and 1 ms for sending."""
    plain = {"ttft_sent_ms": ttft * 1e3 - 2, "ttfo_ms": None, "queue_ms": 0.0, "pool_ms": 1.0, "send_ms": 1.0}
    plain |= {"client_lag_ms": None, "user_class": ("Reader", "Writer")[worker], "worker": worker}
    return maker.request(index, due, ttft, e2e, tokens, **(plain | fields))


def unfinished(index: int, worker: int, status: str, due: float, ttft: float, lasted: float, **fields: Any) -> Record:
    """One whose first token came, and whose end did not."""
    return answered(index, worker, due, ttft, lasted, 2, status=status, tpot_ms=None, last_token_ms=None, **fields)


# Columns that are filled in for few requests only, so that they can be seen in the figures one by one.
NEW_CONNECTION = {"dns_ms": 3.0, "tcp_ms": 4.0, "tls_ms": 5.0, "headers_ms": 50.0, "ttft_sent_ms": 186.0}
SERVER = {"server_total_ms": 1590.0, "server_load_ms": 5.0, "server_prompt_ms": 390.0, "server_decode_ms": 1195.0}
ASKED = {"asked_input_tokens": 90, "prefix_tokens": 40, "cached_tokens": 50, "asked_output_tokens": 20}

REQUESTS = [
    # due in the ramp, ends in the window at 2.5: counts for requests/s, and for nothing else
    answered(1, 0, 1.0, 0.1, 1.5, 10, input_tokens=100),
    # due exactly when the window begins: inside.  80 ms a token after the first
    answered(2, 0, 2.0, 0.2, 1.0, 11, input_tokens=100, output_tps=11.0, decode_tps=12.5, ttfo_ms=200.0, ttst_ms=80.0,
             client_lag_ms=0.1, **NEW_CONNECTION, **ASKED),
    # begun 100 ms late
    answered(3, 1, 3.1, 0.3, 1.25, 20, input_tokens=200, output_tps=16.0, decode_tps=20.0, queue_ms=100.0,
             intended_time=T0 + 3.0, ttft_due_ms=400.0, client_lag_ms=0.3, asked_input_tokens=190, prefix_tokens=40,
             cached_tokens=0),
    answered(4, 0, 4.0, 0.4, 1.6, 31, input_tokens=300, output_tps=19.375, decode_tps=25.0, asked_output_tokens=31,
             **SERVER),
    answered(5, 1, 5.0, 0.5, 2.0, 16, input_tokens=400, output_tps=8.0, decode_tps=10.0, ttfo_ms=900.0),
    maker.failed(6, 6.0, 0.5, "http_5xx", "overloaded"),
    # its first token came somewhere between 560 and 600 ms
    unfinished(7, 1, "timeout", 7.0, 0.6, 3.0, input_tokens=50, ttft_low_ms=560.0, error_class="stall_timeout",
               error="nothing for 2 s"),
    unfinished(8, 0, "cancelled", 8.0, 0.7, 1.5, input_tokens=60),
    maker.Record(id="r9", worker=1, user_class="Writer", status="shed", intended_time=T0 + 9, model="a-model"),
    # due in the window, ends in the drain: counts for latencies, and not for requests/s
    answered(10, 0, 11.0, 0.8, 1.6, 41, input_tokens=500, output_tps=25.625, decode_tps=50.0),
    # due in the window, first token in the drain, cut by the end of the run
    unfinished(11, 1, "incomplete", 11.5, 0.9, 1.5, input_tokens=70),
]  # fmt: skip
for record in REQUESTS:
    record.name, record.protocol = "/v1/chat/completions", "openai-chat"
    if record.status == "failed":
        record.user_class, record.queue_ms, record.pool_ms, record.send_ms = "Reader", 0.0, 1.0, 1.0
        record.http_status = 503


def line(worker: int, number: int, start: float, end: float, **told: Any) -> dict[str, Any]:
    """An interval: what a worker saw from `start` to `end`. Those of real runs last a second; longer ones are less to
    write down, and mean the same. Two reach over an edge of the window, and count in proportion."""
    itl = {"itl": histogram.encode_ns([round(ms * 1e6) for ms in told.pop("gaps", [])])}
    known = {"worker": worker, "seq": number, "time": T0 + end, "seconds": end - start, "users": 1, "target_users": 1}
    return known | {"in_flight": 0, "client_lag": "", "ttft": ""} | itl | told


def seconds(*amounts: tuple[int, float]) -> list[list[float]]:
    return [[T0 + second, amount] for second, amount in amounts]


INTERVALS = [
    line(0, 0, 0, 1, started=1),
    # r1: 10 tokens from 1.1 to 2.5 s; r2: 11 from 2.2 to 3.0 s, the last of them in second 3
    line(0, 1, 1, 3, started=1, ended={"ok": 2}, chunks=20, characters=80, bytes=2000, gaps=[40, 40],
         tokens=seconds((1, 6), (2, 4), (2, 10)), input_tokens=seconds((1, 100), (2, 100)), merged_reads=1,
         late_merged_reads=0, cpu_percent=20, loop_cpu_percent=10, loop_wait_percent=1, loop_lag_ms=2.5, gc_pause_ms=2,
         gc_pause_max_ms=0.3, ring_full_ms=0, steal_percent=0, throttled_percent=0, clock_jump_ms=-0.25,
         descriptors=64, descriptor_limit=1024, sockets=10, ports=100, tcp_trouble={"TCPRcvCollapsed": 2}),
    # r2's last; r4: 31 tokens from 4.4 to 5.6 s; r8: 3 in second 8; r10: 41 from 11.8 to 12.6 s
    line(0, 2, 3, 12, started=4, ended={"ok": 1, "failed": 1, "cancelled": 1}, errors={"http_5xx": 1}, in_flight=1,
         chunks=45, characters=180, bytes=4500, gaps=[40, 40, 40, 40],
         tokens=seconds((3, 1), (4, 15), (5, 16), (8, 3), (11, 10)),
         input_tokens=seconds((4, 300), (8, 60), (11, 500)), merged_reads=2, late_merged_reads=1,
         cpu_percent=42, loop_cpu_percent=32, loop_wait_percent=1, loop_lag_ms=0.5, gc_pause_ms=9, gc_pause_max_ms=0.4,
         ring_full_ms=0, steal_percent=1.1, throttled_percent=0, clock_jump_ms=0.1, descriptors=128,
         descriptor_limit=1024, sockets=20, ports=100, tcp_trouble={"TCPRcvCollapsed": 1}),
    line(0, 3, 12, 13, ended={"ok": 1}, chunks=31, characters=124, bytes=3100, tokens=seconds((12, 31)), gaps=[1000]),
    line(1, 0, 0, 2),
    # r3: 20 tokens from 3.4 to 4.35 s; r5: 16 from 5.5 to 7.0 s; r7: 5 from 7.6 to 8.0 s
    line(1, 1, 2, 12, started=4, ended={"ok": 2, "timeout": 1, "shed": 1}, errors={"stall_timeout": 1}, in_flight=1,
         chunks=41, characters=164, bytes=4100, gaps=[80, 80, 80, 80],
         tokens=seconds((3, 12), (4, 8), (5, 5), (6, 10), (7, 1), (7, 4), (8, 1)),
         input_tokens=seconds((3, 200), (5, 400), (7, 50)), merged_reads=3, late_merged_reads=1,
         cpu_percent=50, loop_cpu_percent=40, loop_wait_percent=2, loop_lag_ms=1.5, gc_pause_ms=5, gc_pause_max_ms=0.2,
         ring_full_ms=10, steal_percent=0.5, throttled_percent=1, clock_jump_ms=0.05, descriptors=64,
         descriptor_limit=1024, sockets=5, ports=100, tcp_trouble={"TCPRcvCollapsed": 1}),
    line(1, 2, 12, 13, ended={"incomplete": 1}, chunks=2, characters=8, bytes=200, tokens=seconds((12, 2)),
         input_tokens=seconds((12, 70)), gaps=[1000]),
]  # fmt: skip

HARDWARE = f"""time,host,device,metric,value,mean,max
{T0 + 1},gpu1,GPU-0,power_watts,900,900,900
{T0 + 3},gpu1,GPU-0,power_watts,300,,
{T0 + 5},gpu1,GPU-0,power_watts,310,320,400
"""


def of(
    count: int, mean: float, variance: float | None, low: float, percentiles: tuple[float, ...], high: float
) -> dict[str, Any]:
    """A distribution as summary.json has it; `percentiles` are p50, p90, p95, p99 and p99.9."""
    deviation = None if variance is None else sqrt(variance)
    named = dict(zip(NO_SURE_PERCENTILE, percentiles, strict=True))
    unsure = NO_SURE_PERCENTILE if count < 6 else ONLY_THE_MEDIAN
    return {"count": count, "mean": mean, "std": deviation, "min": low, **named, "max": high, "unsure": unsure}


def lower(*percentiles: float) -> dict[str, Any]:
    return {"low": dict(zip(NO_SURE_PERCENTILE, percentiles, strict=True))}


def once(value: float) -> dict[str, Any]:
    """Of a single figure."""
    return of(1, value, None, value, (value,) * 5, value)


def always(count: int, value: float) -> dict[str, Any]:
    return of(count, value, 0, value, (value,) * 5, value)


# 200 300 400 500 600 700 800 900: whoever's first token came, r2 r3 r4 r5 r7 r8 r10 r11.
# p90 at place 6.3, p95 at 6.65, p99 at 6.93, p99.9 at 6.993. Variance: 2 * (350² + 250² + 150² + 50²) / 7.
# Their lower bounds are the same but for r7's 560, which stands at place 4.
TTFT = of(8, 550, 60_000, 200, (550, 830, 865, 893, 899.3), 900) | lower(530, 830, 865, 893, 899.3)
# 20 40 50 80 100: r10 (800 / 40), r4 (1200 / 30), r3 (950 / 19), r2 (800 / 10), r5 (1500 / 15).
TPOT = of(5, 58, 1020, 20, (50, 92, 96, 99.2, 99.92), 100)
# 1000 1250 1600 1600 2000. Variance: (490² + 240² + 110² + 110² + 510²) / 4.
E2E = of(5, 1490, 145_500, 1000, (1600, 1840, 1920, 1984, 1998.4), 2000)

LATENCY = {
    "ttft_ms": TTFT,
    # 2 ms less each, and 14 less for r2: 186 298 398 … 898. Mean 4372 / 8. Squares of the deviations: 428 526 / 7.
    "ttft_sent_ms": of(8, 546.5, 61_218, 186, (548, 828, 863, 891, 897.3), 898),
    # 100 more for r3: 200 400 400 500 600 700 800 900. Mean 4500 / 8.
    # Variance: (362.5² + 2 * 162.5² + 62.5² + 37.5² + 137.5² + 237.5² + 337.5²) / 7.
    "ttft_due_ms": of(8, 562.5, 378_750 / 7, 200, (550, 830, 865, 893, 899.3), 900),
    "ttfo_ms": of(2, 550, 245_000, 200, (550, 830, 865, 893, 899.3), 900),  # 200 900
    "ttst_ms": once(80),
    "tpot_ms": TPOT,
    "e2e_ms": E2E,
    "last_token_ms": E2E,  # each ended with its last token
    # 8 11 16 19.375 25.625: r5 r2 r3 r4 r10, tokens over seconds. Deviations −8 −5 0 3.375 9.625.
    "output_tps": of(5, 16, 48.2578125, 8, (16, 23.125, 24.375, 25.375, 25.6), 25.625),
    # 10 12.5 20 25 50: 1000 over TPOT. Deviations −13.5 −11 −3.5 1.5 26.5.
    "decode_tps": of(5, 23.5, 255, 10, (20, 40, 45, 49, 49.9), 50),
    # eight times 0, and r3's 100; p90 at place 7.2. Variance: (8 * (100/9)² + (800/9)²) / 8 = 10 000 / 9.
    "queue_ms": of(9, 100 / 9, 10_000 / 9, 0, (0, 20, 60, 92, 99.2), 100),
    "pool_ms": always(9, 1),
    "dns_ms": once(3),
    "tcp_ms": once(4),
    "tls_ms": once(5),
    "send_ms": always(9, 1),
    "headers_ms": once(50),
    # eight times 1 + 1, and r2's 1 + 3 + 4 + 5 + 1. Variance: (8 * (4/3)² + (32/3)²) / 8.
    "sent_ms": of(9, 30 / 9, 16, 2, (2, 4.4, 9.2, 13.04, 13.904), 14),
    "server_total_ms": once(1590),
    "server_load_ms": once(5),
    "server_prompt_ms": once(390),
    "server_decode_ms": once(1195),
}

# In the intervals whose middle is in the window: six gaps of 40 ms and four of 80, within 0.5 %.
# Deviations of 16 and 24 from the mean of 56: variance (6 * 16² + 4 * 24²) / 10, of a population.
ITL = of(10, 56, 384, 40, (40, 80, 80, 80, 80), 80)

THROUGHPUT = {
    "seconds": 10,
    "requests_per_s": 0.5,  # r1 r2 r3 r4 r5 ended well between 2 and 12
    "asked_per_s": None,  # nobody asks for a rate in a closed loop
    "due_per_s": 1.0,  # r2 to r11
    "sent_per_s": 0.9,  # all those but r9, 2 ms after their start (r2 14, r3 102)
    "inputs_per_s": None,  # no embeddings
    "output_tokens_per_s": 10.0,  # by second, 2 to 11: 14 13 23 21 10 5 4 0 0 10, together 100
    "input_tokens_per_s": 161.0,  # at first tokens: 100 200 300 400 50 60 500, together 1610
    "total_tokens_per_s": 171.0,
    "characters_per_s": 38.4,  # half of 80, 180 and 164
    "chunks_per_s": 9.6,  # half of 20, 45 and 41
    "bytes_per_s": 960.0,  # half of 2000, 4500 and 4100
    "tokens_placed_by": "chunks",
    "peak_output_tokens_per_s": 23.0,  # in second 4: 15 of r4, 8 of r3
    "peak_second": T0 + 4,
    "requests_per_s_per_user": 0.25,
    "output_tokens_per_s_per_user": 5.0,
    "characters_per_s_per_user": 19.2,
}

# Seconds between sent and end, inside the window: r1 0.5, r2 0.986, r3 1.248, r4 1.598, r5 1.998, r6 0.498, r7 2.998,
# r8 1.498, r10 0.998, r11 0.498: together 12.82, in 10 s.
CONCURRENCY = {
    "arrivals": "closed",
    "users_asked": 2,
    "users": 2,
    "users_from": "boundaries",
    "in_flight": 1.282,
    "in_flight_from": "rows",
    "in_flight_max": 2,
    "share": 0.641,
}

COHORT = {"due": 10, "ok": 5, "failed": 1, "timeout": 1, "cancelled": 1, "incomplete": 1, "shed": 1}

TOKENS = {
    "sources": {"usage": 5},
    "estimated": False,
    # 11 16 20 31 41: r2 r5 r3 r4 r10. Deviations −12.8 −7.8 −3.8 7.2 17.2.
    "output": of(5, 23.8, 146.7, 11, (20, 37, 39, 40.6, 40.96), 41),
    "input": of(5, 300, 25_000, 100, (300, 460, 480, 496, 499.6), 500),  # 100 200 300 400 500
    "characters": of(5, 95.2, 2347.2, 44, (80, 148, 156, 162.4, 163.84), 164),  # four a token
    "cached_share": 1 / 6,  # 50 and 0 of 100 and 200
    "asked": {"rows": 2, "asked_mean": 25.5, "actual_mean": 21, "actual_share": 42 / 51},  # 20 and 31; 11 and 31
    "prompts": {"rows": 2, "asked_mean": 140, "actual_mean": 150, "estimated": True},  # 90 and 190; 100 and 200
    "prefixes": {"rows": 2, "shared_share": 80 / 300, "cached_share": 50 / 300},
}

SLO = {
    "attained": False,
    "objectives": [
        # All ten count: r6 r7 r9 failed; r8 (700), r10 (800) and r11 (900) were too late. In order 200 300 400 500 700
        # 800 900 and three never: half of ten must keep to it, so the figure after the fifth is the one to be below.
        {
            "objective": "ttft_p50<600ms",
            "metric": "ttft",
            "limit": 600,
            "allowed": 0.5,
            "counted": 10,
            "misses": 6,
            "miss_share": 0.6,
            "value": 800,
            "beyond": False,
            "attained": False,
        },
        # r8 and r11 had not had their 60 s, and are out. 1000 1250 1600 1600 2000 and three never: the fifth.
        {
            "objective": "e2e_p50<60s",
            "metric": "e2e",
            "limit": 60_000,
            "allowed": 0.5,
            "counted": 8,
            "misses": 3,
            "miss_share": 0.375,
            "value": 2000,
            "beyond": False,
            "attained": True,
        },
        # r6 r7 r9 of all but r8 and r11.
        {
            "objective": "error_rate<30%",
            "metric": "error_rate",
            "limit": None,
            "allowed": 0.3,
            "counted": 8,
            "misses": 3,
            "miss_share": 0.375,
            "value": 0.375,
            "beyond": False,
            "attained": False,
        },
    ],
    "classes": [],
}

# ttft<450ms: kept by r2 r3 r4. tpot<70ms: kept by r3 r4 r10, unknown of r8 and r11. Both: r3 and r4.
GOODPUT = {
    "limits": ["ttft<450ms", "tpot<70ms"],
    "due": 10,
    "good": 2,
    "per_s": 0.2,
    "share": 0.2,
    "misses": [7, 5],
    "classes": [
        # r2 r4 r6 r8 r10: too late for a first token r6 r8 r10, too slow r2 r6
        {"user_class": "Reader", "due": 5, "good": 1, "per_s": 0.1, "share": 0.2, "misses": [3, 2]},
        # r3 r5 r7 r9 r11: r5 r7 r9 r11, and r5 r7 r9
        {"user_class": "Writer", "due": 5, "good": 1, "per_s": 0.1, "share": 0.2, "misses": [4, 3]},
    ],
}

READER = {
    "value": "Reader",
    "due": 5,
    "ok": 3,
    "failed": 1,
    "output_tokens": 83,  # 11 31 41
    # 200 400 700 800; p90 at place 2.7
    "ttft_ms": of(4, 525, 227_500 / 3, 200, (550, 770, 785, 797, 799.7), 800) | lower(550, 770, 785, 797, 799.7),
    "tpot_ms": of(3, 140 / 3, 2800 / 3, 20, (40, 72, 76, 79.2, 79.92), 80),  # 20 40 80
    "e2e_ms": of(3, 1400, 120_000, 1000, (1600, 1600, 1600, 1600, 1600), 1600),  # 1000 1600 1600
}
WRITER = {
    "value": "Writer",
    "due": 5,
    "ok": 2,
    "failed": 1,
    "output_tokens": 36,  # 20 16
    # 300 500 600 900; at least 300 500 560 900
    "ttft_ms": of(4, 575, 62_500, 300, (550, 810, 855, 891, 899.1), 900) | lower(530, 798, 849, 889.8, 898.98),
    "tpot_ms": of(2, 75, 1250, 50, (75, 95, 97.5, 99.5, 99.95), 100),  # 50 100
    "e2e_ms": of(2, 1625, 281_250, 1250, (1625, 1925, 1962.5, 1992.5, 1999.25), 2000),  # 1250 2000
}

CLIENT = {
    "workers": 2,
    "clocks": {"kernel": 8},  # of those whose first token came
    "transports": {"fast": 10},
    "client_lag_ms": of(2, 0.2, 0.02, 0.1, (0.2, 0.28, 0.29, 0.298, 0.2998), 0.3),
    "read_lag_ms": None,
    "merged_reads": 6,  # 1 2 3: of the intervals whose middle is in the window
    "late_merged_reads": 2,
    "cpu_percent": {"mean": 112 / 3, "max": 50},  # 20 42 50
    "loop_cpu_percent": {"mean": 82 / 3, "max": 40},  # 10 32 40
    "loop_wait_percent": {"mean": 4 / 3, "max": 2},  # 1 1 2
    "loop_lag_ms": {"mean": 1.5, "max": 2.5},  # 2.5 0.5 1.5
    # The worse worker's, each:
    "gc_share": 0.001,
    "gc_pause_max_ms": 0.4,
    "ring_full_share": 0.001,
    "steal_share": 0.009,
    "throttled_share": 0.01,
    "clock_jump_ms": 0.25,
    "descriptors_share": 0.125,
    "ports_share": 0.2,
    "tcp_trouble": {"TCPRcvCollapsed": 3},  # both read one machine's counter, and worker 0 saw more of it
    "by_worker": [
        {
            "worker": 0,  # two intervals, of 2 s and 9 s
            "cpu_percent": 38,  # (2 * 20 + 9 * 42) / 11
            "cpu_percent_max": 42,
            "busy_share": 0.29,  # (2 * 10 + 9 * 32) / 11 = 28 %, and 1 % waiting
            "wait_share": 0.01,
            "loop_lag_max_ms": 3500.0,  # a report of 9 s is 3.5 s later than the median of 9 and 2
            "gc_share": 0.001,  # 11 ms in 11 s
            "gc_pause_max_ms": 0.4,
            "ring_full_share": 0,
            "steal_share": 0.009,  # (9 * 1.1 %) / 11
            "throttled_share": 0,
            "clock_jump_ms": 0.25,
            "descriptors_share": 0.125,  # 128 of 1024
            "ports_share": 0.2,
        },
        {
            "worker": 1,  # one interval, of 10 s
            "cpu_percent": 50,
            "cpu_percent_max": 50,
            "busy_share": 0.42,
            "wait_share": 0.02,
            "loop_lag_max_ms": 1.5,
            "gc_share": 0.0005,
            "gc_pause_max_ms": 0.2,
            "ring_full_share": 0.001,
            "steal_share": 0.005,
            "throttled_share": 0.01,
            "clock_jump_ms": 0.05,
            "descriptors_share": 0.0625,
            "ports_share": 0.05,
        },
    ],
}


RELATIONS = ("ttft_ms_by_input_tokens", "ttft_ms_by_cached_share", "ttft_ms_by_in_flight", "tpot_ms_by_in_flight")
RELATIONS += ("tpot_ms_by_output_tokens", "e2e_ms_by_output_tokens")
UNKNOWN = ("joules", "watts", "joules_per_output_token", "joules_per_total_token", "output_tokens_per_joule")
UNKNOWN += ("total_tokens_per_joule", "net_joules", "net_joules_per_output_token", "net_joules_per_total_token")
UNKNOWN += ("net_output_tokens_per_joule", "cost", "cost_per_million_output_tokens", "cost_per_million_total_tokens")
ENERGY = {"seconds": 10, "output_tokens": 100, "total_tokens": 1710} | dict.fromkeys(UNKNOWN)
"""Two samples are no integral. 100 and 1610 tokens, as above."""


def phase(kind: str, start: float, end: float, users: int) -> dict[str, Any]:
    return {"kind": kind, "start": T0 + start, "end": T0 + end, "users": users, "step": 0}


EXPECTED: dict[str, Any] = {
    "schema": 1,
    "phases": {
        "warmup_s": 1.0,
        "settling": "1 s",
        "whole_run": False,
        "note": "",
        "seconds": 10,
        "windows": [phase("steady", 2, 12, 2)],
        "all": [phase("ramp", 0, 2, 2), phase("steady", 2, 12, 2), phase("drain", 12, 13, 0)],
        "steps": [
            {
                "number": 0,
                "users": 2,
                "start": T0,
                "end": T0 + 12,
                "reached": T0 + 1,
                "settled": T0 + 2,
                "unmeasured": "",
            }
        ],
    },
    "requests": {"all": COHORT | {"due": 11, "ok": 6}, "cohort": COHORT, "unaccounted": 0},
    "questions": None,  # nothing was tried again
    "errors": [  # of the ten whose users stayed; when they ended
        {
            "class": name,
            "count": 1,
            "share": 0.1,
            "cohort": 1,
            "first_s": ended,
            "last_s": ended,
            "http_statuses": [status],
            "examples": [{"message": message, "count": 1}],
            "first": {"id": first, "at_s": ended, "worker": worker, "http_status": status, "message": message},
        }
        for name, ended, status, message, first, worker in (
            ("http_5xx", 6.5, 503, "overloaded", "f6", 0),
            ("stall_timeout", 10.0, 200, "nothing for 2 s", "r7", 1),
        )
    ],
    "latency": LATENCY,
    "throughput": THROUGHPUT,
    "concurrency": CONCURRENCY,
    "tokens": TOKENS,
    "client": CLIENT,
    "windows": [
        {
            "start": T0 + 2,
            "end": T0 + 12,
            "users": 2,
            "step": 0,
            "requests": COHORT,
            "ttft_ms": TTFT,
            "tpot_ms": TPOT,
            "e2e_ms": E2E,
            "throughput": THROUGHPUT,
            "concurrency": CONCURRENCY,
            "slo": SLO,
            "goodput": GOODPUT,
        }
    ],
    "groups": {
        "user_class": [READER, WRITER],
        "worker": [  # each has one class. Their tokens, from second 2 to 11: 14 1 15 16 3 10; 12 8 5 10 5 1
            READER | {"value": "0", "output_tokens_per_s": 5.9},
            WRITER | {"value": "1", "output_tokens_per_s": 4.1},
        ],
    },
    "workers_apart": [],  # five requests say nothing of a median
    "stalls": None,  # no row tells its longest gap
    "turns": None,  # no conversations
    "capacity": None,
    "slo": SLO,
    "goodput": GOODPUT,
    "hardware": [
        {
            "host": "gpu1",
            "device": "GPU-0",
            "metric": "power_watts",
            "label": "Power",
            "unit": "W",
            "mean": 310,  # 300, and the mean of 320; that of second 1 is not in the window
            "min": 300,
            "max": 400,
            "std": sqrt(200),
            "p50": 310,
            "p95": 319,
            "samples": 2,
        }
    ],
    "against": dict.fromkeys(RELATIONS),  # five requests show no relation
    "energy": {
        "scope": "GPU boards only",
        "gpus": [{"device": "GPU-0", "name": "gpu1/GPU-0", "method": "power_watts"}],
        "idle_watts": None,
        "idle_from": None,
        "price_per_gpu_hour": None,
        "windows": [
            {"start": T0 + 2, "end": T0 + 12, "users": 2}
            | ENERGY
            | {
                "gpus": [
                    {
                        "device": "GPU-0",
                        "name": "gpu1/GPU-0",
                        "joules": None,
                        "power_off_by": None,
                        "why": "its samples do not reach over all of the window",
                    }
                ]
            }
        ],
        "all": ENERGY,
        "notes": ["The energy of gpu1/GPU-0 is unknown: its samples do not reach over all of the window."],
    },
    "per_gpu": {"gpus": 1, "requests_per_s": 0.5, "output_tokens_per_s": 10.0, "total_tokens_per_s": 171.0},
    "gpus": [],  # none tells its utilization
    "server": None,  # no page of it was read
}
SLOWEST = {
    # id, value, times the median; in flight when it started, of its worker; started within a second; suspect
    "ttft_ms": [
        ("r11", 900, 900 / 550, 1, 0, 1, "server"),  # r10 in flight
        ("r10", 800, 800 / 550, 0, 0, 1, None),  # not half above the median
        ("r8", 700, 700 / 550, 1, 0, 1, None),  # r7 in flight, and begun one second before
        ("r7", 600, 600 / 550, 0, 0, 2, None),  # r5 ends in that moment
        ("r5", 500, 500 / 550, 1, 0, 2, None),
        ("r4", 400, 400 / 550, 1, 0, 2, None),
        ("r3", 300, 300 / 550, 0, 0, 1, None),  # r2 has ended 100 ms before
        ("r2", 200, 200 / 550, 1, 1, 1, None),  # r1, of the same worker, though due in the ramp
    ],
    "e2e_ms": [
        ("r5", 2000, 1.25, 1, 0, 2, None),
        ("r4", 1600, 1.0, 1, 0, 2, None),
        ("r10", 1600, 1.0, 0, 0, 1, None),
        ("r3", 1250, 0.78125, 0, 0, 1, None),
        ("r2", 1000, 0.625, 1, 1, 1, None),
    ],
    "itl_max_ms": [],
}
ROWS = "slowest"
"""What has whole rows in it: by what is known of them here only."""
NO_FIGURES = ("made_by", "run", "defects", "verdict")
"""Tables of texts: what was run, and what to think of it."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = maker.write(
        tmp_path_factory.mktemp("by-hand") / "run",
        REQUESTS,
        maker.boundaries(2, 1, 12, 13),
        users=2,
        load={"arrivals": "closed", "users": 2, "run_time": 12.0},
        user_classes=[{"name": "Reader"}, {"name": "Writer"}],
        workers=[{"index": index, "hostname": "client-1", "pid": index} for index in (0, 1)],
        options={"warmup": 1.0, "slo": "ttft_p50<600ms e2e_p50<60s error_rate<30%", "goodput": "ttft<450ms tpot<70ms"},
    )
    (directory / "intervals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in INTERVALS))
    (directory / "hardware.csv").write_text(HARDWARE)
    return directory


@pytest.fixture(scope="module")
def summary(directory: Path) -> dict[str, Any]:
    return summarise.summarise(read.load(directory))


@pytest.mark.parametrize("table", EXPECTED)
def test_each_figure_is_the_one_that_was_worked_out_by_hand(summary: dict[str, Any], table: str) -> None:
    found = summary[table]
    if table == "latency":
        found = {name: figures for name, figures in found.items() if name != "itl_ms"}
    assert differences(found, EXPECTED[table], table) == []


def test_gaps_between_chunks_are_within_half_a_percent(summary: dict[str, Any]) -> None:
    assert differences(summary["latency"]["itl_ms"], ITL, "itl_ms", within=0.005) == []


def test_no_table_of_figures_is_left_out(summary: dict[str, Any]) -> None:
    assert set(summary) == {*EXPECTED, *NO_FIGURES, ROWS}


def test_the_slowest_and_what_surrounded_them_were_worked_out_too(summary: dict[str, Any]) -> None:
    told = ("in_flight", "in_flight_worker", "started_nearby", "suspect")
    found = {
        kind: [[slow["id"], slow[kind], slow["times_median"], *(slow[name] for name in told)] for slow in slowest]
        for kind, slowest in summary[ROWS].items()
    }
    expected = {kind: [list(slow) for slow in slowest] for kind, slowest in SLOWEST.items()}
    assert differences(found, expected, ROWS) == []


def test_what_the_verdict_is_made_of_was_worked_out_too(summary: dict[str, Any]) -> None:
    found = {reason["rule"]: reason["value"] for reason in summary["verdict"]["reasons"]}
    expected = {
        "few_requests": 5,  # ok in the window
        "cut_by_the_stop": 0.1,  # r11 of ten
        "mostly_failed": 2 / 9,  # r6 and r7, of all but r8, whose user left
        "ttft_bounds": 20 / 550,  # the median lies between 530 and 550
        "cgroup_throttling": 0.01,  # worker 1
        "tcp_trouble": 3,
        "ring_full": 0.001,  # worker 1
        "loop_blocked": 3500.0,  # worker 0, whose report came late
    }
    assert differences(found, expected, "verdict") == []
    assert summary["verdict"]["level"] == "invalid"
    assert summary["defects"] == []
