"""A run directory made by chance, from a seed: many rows, of every kind, with everything in them.

An open loop of five minutes with three steps, on four workers. The files agree in who ended how, and in nothing else:
each is recounted by itself.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import duckdb
from hdrh.histogram import HdrHistogram

from tokenswarm.record import csv_header

ROWS, LENGTH, WORKERS, T0 = 50_000, 300, 4, 1_763_646_000
STEPS = ((0, 10, 20), (100, 105, 40), (200, 205, 60))
"""When each number of users was asked for, when they were there, and how many they are."""


def write(directory: Path, slo: str, goodput: str) -> None:
    """All of its files, into a directory that is there."""
    rows = _made_rows(directory / "requests.csv")
    _made_intervals(directory / "intervals.jsonl", rows)
    _made_hardware(directory / "hardware.csv")
    boundaries: list[dict[str, Any]] = [{"event": "start", "time": T0, "users": 0}]
    for asked, there, users in STEPS:
        boundaries += [
            {"event": "target", "time": T0 + asked, "users": users},
            {"event": "spawned", "time": T0 + there, "users": users},
        ]
    ends = (("stopping", LENGTH - 20.25), ("stopped", LENGTH + 4))
    boundaries += [{"event": event, "time": T0 + at, "users": 60} for event, at in ends]
    described = {
        "schema": 1,
        "run_id": "made",
        "target": {"host": "http://10.0.0.9:8000", "protocol": "openai-chat"},
        "options": {"warmup": 7.5, "slo": slo, "goodput": goodput},
        "user_classes": [{"name": "Reader"}, {"name": "Writer"}],
        "load": {"arrivals": "poisson", "users": 60, "rate_per_user": 3.25},
        "workers": [{"index": index, "hostname": f"client-{index // 2}"} for index in range(WORKERS)],
        "start": {"time": T0},
        "end": {"time": T0 + LENGTH + 5},
        "boundaries": boundaries,
        "rows": {"written": ROWS, "lost": 0},
    }
    (directory / "run.json").write_text(json.dumps(described))


ROW = {
    "id": "'r' || i",
    "worker": f"i % {WORKERS}",
    "user_class": "if(i % 3 = 0, 'Writer', 'Reader')",
    "name": "['chat', 'draft', 'summary', 'list'][1 + i % 4]",
    "protocol": "'openai-chat'",
    "model": "'a-model'",
    "status": "s",
    "error_class": "CASE s WHEN 'failed' THEN ['http_5xx', 'truncated', 'connect'][1 + i % 3] "
    "WHEN 'timeout' THEN 'stall_timeout' END",
    "error": "CASE WHEN s IN ('failed', 'timeout') THEN 'message ' || (i % 7)::VARCHAR || ', \"quoted\"' END",
    "http_status": "if(s = 'failed', [503, 200, NULL][1 + i % 3], 200)",
    "finish_reason": "if(s = 'ok', 'stop', NULL)",
    "start_time": f"if(s = 'shed', NULL, printf('%.6f', {T0} + due + late))",
    "intended_time": f"printf('%.6f', {T0} + due)",
    "first_token_time": f"if(came, printf('%.6f', {T0} + due + late + ttft), NULL)",
    "end_time": f"if(s IN ('shed', 'incomplete'), NULL, printf('%.6f', {T0} + due + late + e2e))",
    "ttft_ms": "if(came, printf('%.3f', ttft * 1000), NULL)",
    "ttft_sent_ms": "if(came, printf('%.3f', ttft * 1000 - 0.4), NULL)",
    "ttft_due_ms": "if(came, printf('%.3f', (ttft + late) * 1000), NULL)",
    "ttft_low_ms": "if(came AND i % 50 <> 0, printf('%.3f', ttft * if(i % 40 = 0, 900, 1000)), NULL)",
    "ttfo_ms": "if(came AND i % 2 = 0, printf('%.3f', ttft * 1100), NULL)",
    "ttst_ms": "if(came, printf('%.3f', ttft * 10), NULL)",
    "tpot_ms": "if(s = 'ok' AND n > 1, printf('%.3f', (e2e - ttft) / (n - 1) * 1000), NULL)",
    "chunks": "if(came, n, 0)",
    "e2e_ms": "if(s IN ('shed', 'incomplete'), NULL, printf('%.3f', e2e * 1000))",
    "last_token_ms": "if(came, printf('%.3f', e2e * 999), NULL)",
    "queue_ms": "if(s = 'shed', NULL, printf('%.3f', late * 1000))",
    "pool_ms": "if(s = 'shed' OR i % 997 = 0, NULL, '0.200')",
    "dns_ms": "if(i % 100 = 0 AND s <> 'shed', '1.500', NULL)",
    "tcp_ms": "if(i % 10 = 0 AND s <> 'shed', printf('%.3f', 0.1 + late), NULL)",
    "tls_ms": "if(i % 10 = 0 AND s <> 'shed', '4.000', NULL)",
    "send_ms": "if(s = 'shed', NULL, '0.200')",
    "headers_ms": "if(came, printf('%.3f', ttft * 900), NULL)",
    "remote_addr": "if(s = 'shed', NULL, ['10.0.0.9:8000', '10.0.0.9:8001'][1 + i % 2])",
    "transport": "'fast'",
    "clock": "if(i % 20 = 0, 'user', 'kernel')",
    "attempts": "1",
    "output_tokens": "if(came, n, NULL)",
    "token_source": "if(came, if(i % 30 = 0, 'chunks', 'usage'), NULL)",
    "input_tokens": "if(came AND i % 30 <> 0, 50 + i % 900, NULL)",
    "cached_tokens": "if(came AND i % 60 = 1, i % 50, NULL)",
    "asked_output_tokens": "if(i % 2 = 0, n + i % 9, NULL)",
    "asked_input_tokens": "if(i % 5 = 0, 60 + i % 880, NULL)",
    "prefix_tokens": "if(i % 5 = 0, 40, NULL)",
    "output_chars": "if(came, n * 4 + i % 5, 0)",
    "request_bytes": "300",
    "response_bytes": "if(came, n * 200, 90)",
    "output_tps": "if(s = 'ok', printf('%.3f', n / e2e), NULL)",
    "decode_tps": "if(s = 'ok' AND n > 1, printf('%.3f', (n - 1) / (e2e - ttft)), NULL)",
    "server_total_ms": "if(s = 'ok' AND i % 4 = 0, printf('%.3f', e2e * 990), NULL)",
    "client_lag_ms": "if(s = 'shed', NULL, printf('%.3f', late / 10))",
}
"""A row's cells in SQL: of its number `i`, when it was `due`, how `late` it began, its status `s`, whether its first
token `came`, after how long (`ttft`, `e2e`, seconds), and its `n` tokens."""


def _made_rows(path: Path) -> duckdb.DuckDBPyConnection:
    """requests.csv, and the same as a table."""
    sql = duckdb.connect()
    sql.execute("SET threads = 1")
    sql.execute("SELECT setseed(0.42)")
    sql.execute(f"""
        CREATE TABLE drawn AS SELECT i, random() * {LENGTH - 2} AS due, random() * random() / 50 AS late,
            exp(random() * 2.5 - 3) AS ttft, 1 + floor(random() * random() * 200)::INT AS n, random() AS fate,
            random() AS pace FROM range({ROWS}) AS made(i)""")
    sql.execute("""
        CREATE TABLE fates AS SELECT *, ttft + 0.001 + n * (0.01 + pace / 50) AS e2e, CASE
            WHEN fate < 0.9 THEN 'ok' WHEN fate < 0.94 THEN 'failed' WHEN fate < 0.955 THEN 'timeout'
            WHEN fate < 0.98 THEN 'cancelled' WHEN fate < 0.985 THEN 'incomplete' ELSE 'shed' END AS s FROM drawn""")
    sql.execute("CREATE TABLE made AS SELECT *, s = 'ok' OR (s <> 'shed' AND i % 2 = 0) AS came FROM fates")
    cells = [f"{ROW.get(name, 'NULL')} AS {name}" for name in csv_header().strip().split(",")]
    sql.execute(f"COPY (SELECT {', '.join(cells)} FROM made ORDER BY i) TO '{path}' (HEADER, DELIMITER ',')")
    return sql


def _made_intervals(path: Path, rows: duckdb.DuckDBPyConnection) -> None:
    """Lines of about a second, on no worker's at the same instant; what is in them is drawn anew, but who ended how."""
    draw = random.Random(7)
    encoded = [_histogram(draw) for _ in range(40)]
    ended: dict[int, dict[str, int]] = {}
    for worker, status, count in rows.execute(f"SELECT i % {WORKERS}, s, count(*) FROM made GROUP BY 1, 2").fetchall():
        ended.setdefault(worker, {})[status] = count
    lines = []
    for worker in range(WORKERS):
        at = T0 + worker * 0.21
        for number in range(LENGTH):
            lasted = 0.95 + draw.random() / 10
            at += lasted
            second = math.floor(at) - 1
            lines.append(
                {
                    "worker": worker,
                    "seq": number,
                    "time": round(at, 6),
                    "seconds": round(lasted, 6),
                    "users": 5,
                    "target_users": 5,
                    "in_flight": 0,
                    "started": 50,
                    "ended": ended[worker] if number == LENGTH - 1 else {},
                    "errors": {},
                    "chunks": draw.randrange(2000),
                    "characters": draw.randrange(8000),
                    "bytes": draw.randrange(400_000),
                    "tokens": [[second - 1, draw.randrange(900)], [second, draw.randrange(900)]],
                    "input_tokens": [[second, draw.randrange(5000)]],
                    "ttft": "",
                    "itl": draw.choice(["", *encoded]),
                    "client_lag": draw.choice(encoded),
                    "merged_reads": draw.randrange(4),
                    "late_merged_reads": draw.randrange(2),
                    "cpu_percent": draw.uniform(10, 60),
                    "loop_cpu_percent": draw.choice([None, draw.uniform(10, 50)]),
                    "loop_wait_percent": draw.choice([None, draw.uniform(0, 1)]),
                    "loop_lag_ms": draw.uniform(0, 9),
                    "gc_pauses": 1,
                    "gc_pause_ms": draw.uniform(0, 3),
                    "gc_pause_max_ms": draw.uniform(0, 3),
                    "ring_full": 0,
                    "ring_full_ms": draw.uniform(0, 1),
                    "tcp_trouble": draw.choice([None, {}, {"TCPRcvCollapsed": 1}, {"PruneCalled": draw.randrange(5)}]),
                    "steal_percent": draw.uniform(0, 1),
                    "throttled_percent": draw.choice([None, draw.uniform(0, 1)]),
                    "clock_jump_ms": draw.uniform(-0.1, 0.1),
                    "descriptors": draw.randrange(60, 80),
                    "descriptor_limit": 1024,
                    "sockets": draw.randrange(40, 60),
                    "ports": 28_232,
                }
            )
    draw.shuffle(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in sorted(lines, key=lambda line: line["time"])))


def _histogram(draw: random.Random) -> str:
    made = HdrHistogram(1, 3_600_000_000, 3)
    for _ in range(20):
        made.record_value(draw.randrange(5_000, 90_000), draw.randrange(1, 9))
    encoded: bytes = made.encode()
    return encoded.decode()


def _made_hardware(path: Path) -> None:
    draw = random.Random(8)
    lines = ["time,host,device,metric,value,mean,max"]
    for second in range(-10, LENGTH + 10):
        for device in ("GPU-1", "GPU-2"):
            lines.append(f"{T0 + second + draw.random():.6f},gpu1,{device},power_watts,{draw.randrange(700)},,")
            use = sorted(draw.random() for _ in range(3))
            lines.append(f"{T0 + second:.6f},gpu1,{device},utilization_ratio,{use[0]},{use[1]},{use[2]}")
        lines.append(f"{T0 + second:.6f},client,,cpu_busy_ratio,{draw.random()},,")
    path.write_text("\n".join(lines) + "\n")
