"""A second opinion on a run directory: every table of figures in summary.json computed anew, by SQL and plain Python.

It shares no line with tokenswarm, and knows the files by their documentation alone; it is slow, and forgives nothing.
The run must be whole, and its --warmup in seconds.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
from hdrh.histogram import HdrHistogram
from recount_workers import gauge, tcp_trouble, top, worker

NAMES = ("p50", "p90", "p95", "p99", "p99.9")
RANKS = (0.5, 0.9, 0.95, 0.99, 0.999)
FEWEST = {"p50": 6, "p90": 36, "p95": 72, "p99": 368, "p99.9": 3688}
STATUSES = ("ok", "failed", "timeout", "cancelled", "incomplete", "shed")
TEXTS = "id user_class name protocol model conversation parent status error_class error finish_reason remote_addr "
TEXTS += "transport clock token_source conn_reused"
FIRST_TOKEN = ("ttft_ms", "ttft_sent_ms", "ttft_due_ms")
OK_ONLY = ("ttfo_ms", "ttst_ms", "tpot_ms", "e2e_ms", "last_token_ms", "output_tps", "decode_tps")
OK_ONLY += ("server_total_ms", "server_load_ms", "server_prompt_ms", "server_decode_ms")
ON_THE_WAY = ("queue_ms", "pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms", "headers_ms")
HARDWARE = {
    "utilization_ratio": 100.0,
    "power_watts": 1.0,
    "temperature_celsius": 1.0,
    "cpu_busy_ratio": 100.0,
    "memory_used_bytes": 2.0**-30,
}
Window = tuple[float, float, int, int]
"""Start and end in epoch seconds, users, number of the step."""


class Recount:
    """A run's figures. `rows` in SQL has numbers as doubles, empty cells as NULL, and `due` and `sent` in seconds."""

    def __init__(self, directory: Path) -> None:
        self.run = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        lines = (directory / "intervals.jsonl").read_text(encoding="utf-8").splitlines()
        self.intervals: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.sql = duckdb.connect()
        self._load(directory)
        self.windows = self._windows()
        self.seconds = sum(end - start for start, end, *_ in self.windows)
        self.start, self.end = self.run["start"]["time"], self._end()

    def _load(self, directory: Path) -> None:
        path = str(directory / "requests.csv")
        self.sql.execute(
            "CREATE TABLE cells AS SELECT *, row_number() OVER () AS line "
            "FROM read_csv(?, all_varchar = true, header = true, nullstr = '', quote = '\"', escape = '\"')",
            [path],
        )
        columns = [name for name, *_ in self.ask("DESCRIBE cells")]
        known = TEXTS.split()
        cast = [name if name in known else f"CAST({name} AS DOUBLE) AS {name}" for name in columns]
        self.sql.execute(f"CREATE TABLE raw AS SELECT {', '.join(cast)} FROM cells")
        before = " + ".join(f"coalesce({name}, 0)" for name in ("pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms"))
        self.sql.execute(
            "CREATE TABLE rows AS SELECT *, coalesce(intended_time, start_time) AS due, "
            f"CASE WHEN pool_ms IS NULL THEN NULL ELSE {before} END AS sent_ms, "
            "CASE WHEN status IN ('cancelled', 'incomplete', 'ok') THEN NULL ELSE true END AS lost, "
            "((coalesce(end_time, (SELECT max(end_time) FROM raw)) - coalesce(start_time, intended_time)) * 1000) "
            "AS age FROM raw"
        )
        if (directory / "hardware.csv").exists():
            self.sql.execute(
                "CREATE TABLE hardware AS SELECT * FROM read_csv(?, header = true, nullstr = '', types = "
                "{'time': 'DOUBLE', 'host': 'VARCHAR', 'device': 'VARCHAR', 'metric': 'VARCHAR', 'value': 'DOUBLE', "
                "'mean': 'DOUBLE', 'max': 'DOUBLE'})",
                [str(directory / "hardware.csv")],
            )

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.sql.execute(query).fetchall()
        return found

    def one(self, query: str) -> Any:
        return self.ask(query)[0][0]

    def _windows(self) -> list[Window]:
        """From `spawned` and the warm-up to the next change of the load, or its end."""
        boundaries = self.run["boundaries"]
        targets = [boundary for boundary in boundaries if boundary["event"] == "target"]
        stop = min(b["time"] for b in boundaries if b["event"] in ("stopping", "stopped", "through"))
        ends = [*(target["time"] for target in targets[1:]), stop]
        warmup = self.run["options"]["warmup"]
        found = []
        for number, (target, until) in enumerate(zip(targets, ends, strict=True)):
            spawned = (b for b in boundaries if b["event"] == "spawned" and target["time"] <= b["time"] < until)
            there = next(spawned, None)
            if there is not None and until - there["time"] - warmup >= 1:
                found.append((there["time"] + warmup, until, there["users"], number))
        return found

    def _end(self) -> float:
        told = [boundary["time"] for boundary in self.run["boundaries"]] + [line["time"] for line in self.intervals]
        return float(max([*told, self.run["end"]["time"], self.one("SELECT max(end_time) FROM rows")]))

    def inside(self, instant: str, windows: Sequence[Window]) -> str:
        each = (f"({instant} >= {start!r} AND {instant} < {end!r})" for start, end, *_ in windows)
        return f"({' OR '.join(each)})"

    # Rows

    def statuses(self, where: str) -> dict[str, int]:
        found = dict(self.ask(f"SELECT status, count(*) FROM rows WHERE {where} GROUP BY status"))
        return {"due": sum(found.values())} | {status: found.get(status, 0) for status in STATUSES}

    def distribution(self, column: str, where: str, low: str = "") -> dict[str, Any] | None:
        ranks = ", ".join(map(str, RANKS))
        wanted = f"count(x), avg(x), stddev_samp(x), min(x), quantile_cont(x, [{ranks}]), max(x)"
        of = f"(SELECT {column} AS x FROM rows WHERE {column} IS NOT NULL AND {where})"
        ((count, mean, deviation, least, percentiles, most),) = self.ask(f"SELECT {wanted} FROM {of}")
        if not count:
            return None
        found = {"count": count, "mean": mean, "std": deviation, "min": least}
        found |= dict(zip(NAMES, percentiles, strict=True)) | {"max": most, "unsure": few(count)}
        if low:
            of = f"(SELECT coalesce({low}, {column}) AS x FROM rows WHERE {column} IS NOT NULL AND {where})"
            percentiles = self.one(f"SELECT quantile_cont(x, [{ranks}]) FROM {of}")
            found["low"] = dict(zip(NAMES, percentiles, strict=True))
        return found

    def latency(self, cohort: str) -> dict[str, Any]:
        ok = f"{cohort} AND status = 'ok'"
        found = {name: self.distribution(name, cohort) for name in (*FIRST_TOKEN, *ON_THE_WAY, "sent_ms")}
        found |= {name: self.distribution(name, ok) for name in OK_ONLY}
        found["ttft_ms"] = self.distribution("ttft_ms", cohort, "ttft_low_ms")
        found["itl_ms"] = self.gaps()
        return found

    def errors(self, cohort: str) -> list[dict[str, Any]]:
        stayed = self.one("SELECT count(*) FROM rows WHERE status <> 'cancelled'")
        query = f"""
            SELECT error_class, count(*), count(*) FILTER ({cohort}), min(coalesce(end_time, start_time)),
                   max(coalesce(end_time, start_time)), list_sort(list_distinct(list(http_status)))
            FROM rows WHERE error_class IS NOT NULL GROUP BY error_class ORDER BY count(*) DESC, min(line)"""
        found = []
        for name, count, in_cohort, first, last, http in self.ask(query):
            earliest = f"""
                SELECT id, coalesce(end_time, start_time) - {self.start!r}, worker::INT, http_status::INT,
                       coalesce(error, '')
                FROM rows WHERE error_class = '{name}' ORDER BY 2, line LIMIT 1"""
            examples = f"""
                SELECT error, count(*) FROM rows WHERE error_class = '{name}'
                GROUP BY error ORDER BY count(*) DESC, min(line) LIMIT 3"""
            found.append(
                {
                    "class": name,
                    "count": count,
                    "share": count / stayed,
                    "cohort": in_cohort,
                    "first_s": first - self.start,
                    "last_s": last - self.start,
                    "http_statuses": [int(status) for status in http or [] if status is not None],
                    "examples": [{"message": text, "count": n} for text, n in self.ask(examples) if text],
                    "first": named("id at_s worker http_status message", self.ask(earliest)[0]),
                }
            )
        return found

    def groups(self, cohort: str) -> dict[str, list[dict[str, Any]]]:
        found = {}
        for key in ("name", "user_class", "remote_addr", "worker"):
            value = "worker::INT::VARCHAR" if key == "worker" else f"coalesce({key}, '')"
            query = f"""
                SELECT {value}, count(*), count(*) FILTER (status = 'ok'),
                       count(*) FILTER (status IN ('failed', 'timeout')), sum(output_tokens) FILTER (status = 'ok')
                FROM rows WHERE {cohort} GROUP BY 1 ORDER BY {"1" if key == "worker" else "2 DESC"}, min(line)"""
            members = self.ask(query)
            if len(members) > 1:
                found[key] = [self._group(value, cohort, *member) for member in members]
        for worker_group in found.get("worker", []):
            amounts = self.seconds_of("tokens", int(worker_group["value"]))
            worker_group["output_tokens_per_s"] = self.rate(amounts, self.windows)
        return found

    def _group(
        self, key: str, cohort: str, value: str, due: int, ok: int, failed: int, tokens: float | None
    ) -> dict[str, Any]:
        these = f"{cohort} AND {key} = '{value}'"
        return {
            "value": value,
            "due": due,
            "ok": ok,
            "failed": failed,
            "output_tokens": tokens,
            "ttft_ms": self.distribution("ttft_ms", these, "ttft_low_ms"),
            "tpot_ms": self.distribution("tpot_ms", f"{these} AND status = 'ok'"),
            "e2e_ms": self.distribution("e2e_ms", f"{these} AND status = 'ok'"),
        }

    def tokens(self, cohort: str) -> dict[str, Any]:
        ok = f"{cohort} AND status = 'ok'"
        query = f"""
            SELECT token_source, count(*) FROM rows WHERE {ok} AND token_source IS NOT NULL
            GROUP BY 1 ORDER BY 2 DESC"""
        sources = dict(self.ask(query))
        query = f"""
            SELECT count(*), avg(asked_output_tokens), avg(output_tokens), sum(output_tokens) / sum(asked_output_tokens)
            FROM rows WHERE {ok} AND asked_output_tokens IS NOT NULL AND output_tokens IS NOT NULL"""
        asked = self.ask(query)[0]
        cached, of = self.ask(
            f"SELECT sum(cached_tokens), sum(input_tokens) FILTER (cached_tokens IS NOT NULL) FROM rows WHERE {ok}"
        )[0]
        query = f"SELECT count(*), avg(asked_input_tokens), avg(input_tokens) FROM rows WHERE {ok} AND "
        prompts = self.ask(query + "asked_input_tokens IS NOT NULL")[0]
        query = f"""
            SELECT count(*), sum(prefix_tokens) / sum(n),
                   sum(cached_tokens) / sum(n) FILTER (cached_tokens IS NOT NULL)
            FROM (SELECT *, coalesce(input_tokens, asked_input_tokens) AS n FROM rows WHERE {ok})
            WHERE prefix_tokens IS NOT NULL AND n IS NOT NULL"""
        prefixes = self.ask(query)[0]
        return {
            "sources": sources,
            "estimated": bool(sources.get("chunks")),
            "output": self.distribution("output_tokens", ok),
            "input": self.distribution("input_tokens", ok),
            "characters": self.distribution("output_chars", ok),
            "cached_share": None if cached is None else cached / of,
            "asked": named("rows asked_mean actual_mean actual_share", asked),
            "prompts": named("rows asked_mean actual_mean estimated", (*prompts, True)),
            "prefixes": named("rows shared_share cached_share", prefixes),
        }

    # Goals

    def missed(self, column: str, bound: float) -> str:
        """SQL: whether a request missed a limit; NULL where it says nothing."""
        age = column if column == "tpot_ms" else f"coalesce({column}, age)"
        unended = f"status = 'cancelled' OR (status = 'incomplete' AND ({column} IS NULL OR '{column}' = 'e2e_ms'))"
        return f"""(CASE WHEN status IN ('failed', 'timeout', 'shed') THEN true
            WHEN {unended} THEN (CASE WHEN {age} >= {bound} THEN true ELSE NULL END)
            ELSE {column} >= {bound} END)"""

    def goodput(self, cohort: str, seconds: float, limits: dict[str, tuple[str, float]]) -> dict[str, Any]:
        missed = [self.missed(*limit) for limit in limits.values()]
        some, none_of = " OR ".join(f"{m} IS TRUE" for m in missed), " AND ".join(f"{m} IS NOT TRUE" for m in missed)
        misses = ", ".join(f"count(*) FILTER ({m} IS TRUE)" for m in missed)

        def of(where: str) -> dict[str, Any]:
            query = f"""
                SELECT count(*) FILTER (status = 'ok' OR {some}), count(*) FILTER (status = 'ok' AND {none_of}),
                       {misses} FROM rows WHERE {where}"""
            due, good, *each = self.ask(query)[0]
            return {"due": due, "good": good, "per_s": good / seconds, "share": good / due, "misses": each}

        query = f"SELECT user_class FROM rows WHERE {cohort} GROUP BY 1 ORDER BY 1"
        classes = [{"user_class": name} | of(f"{cohort} AND user_class = '{name}'") for (name,) in self.ask(query)]
        return {"limits": list(limits)} | of(cohort) | {"classes": classes if len(classes) > 1 else []}

    def objective(self, text: str, cohort: str, column: str, rank: float, bound: float) -> dict[str, Any]:
        late = "status IN ('cancelled', 'incomplete')"
        worth = f"""(CASE WHEN status = 'ok' AND {column} IS NOT NULL THEN {column}
            WHEN {late} THEN coalesce({column}, age, 0) ELSE 'infinity'::DOUBLE END)"""
        query = f"SELECT missed, worth FROM (SELECT {self.missed(column, bound)} AS missed, {worth} AS worth FROM rows "
        found = self.ask(query + f"WHERE {cohort}) WHERE missed IS NOT NULL ORDER BY worth")
        misses, place = sum(missed for missed, _ in found), math.floor(rank / 100 * len(found) + 1e-9)
        value = found[min(len(found) - 1, place)][1]
        return self._judged(text, column.removesuffix("_ms"), bound, 1 - rank / 100, len(found), misses, value)

    def error_rate(self, text: str, cohort: str, allowed: float) -> dict[str, Any]:
        counted = self.one(f"SELECT count(*) FROM rows WHERE {cohort} AND status NOT IN ('cancelled', 'incomplete')")
        misses = self.one(f"SELECT count(*) FROM rows WHERE {cohort} AND lost")
        return self._judged(text, "error_rate", None, allowed, counted, misses, misses / counted)

    def _judged(
        self, text: str, metric: str, bound: float | None, allowed: float, counted: int, misses: int, value: float
    ) -> dict[str, Any]:
        beyond = value == math.inf
        judged = {"objective": text, "metric": metric, "limit": bound, "allowed": allowed, "counted": counted}
        judged |= {"misses": misses, "miss_share": misses / counted, "value": None if beyond else value}
        return judged | {"beyond": beyond, "attained": misses / counted < allowed}

    # Flows

    def rate(self, amounts: Iterable[tuple[float, float, float]], windows: Sequence[Window]) -> float:
        """Amounts, each spread evenly over its (start, end), a second of the windows."""
        total = 0.0
        for start, end, amount in amounts:
            for first, last, *_ in windows:
                total += amount * max(0.0, min(end, last) - max(start, first)) / (end - start)
        return total / sum(last - first for first, last, *_ in windows)

    def seconds_of(self, what: str, worker: int | None = None) -> list[tuple[float, float, float]]:
        """`tokens` or `input_tokens`: amounts of whole seconds, of all workers or of one."""
        lines = (line for line in self.intervals if worker in (None, line["worker"]))
        return [(second, second + 1, amount) for line in lines for second, amount in line[what]]

    def lasting(self, what: str) -> list[tuple[float, float, float]]:
        return [(line["time"] - line["seconds"], line["time"], line[what]) for line in self.intervals]

    def throughput(self, cohort: str, windows: Sequence[Window]) -> dict[str, Any]:
        seconds = sum(end - start for start, end, *_ in windows)
        users = sum((end - start) * n for start, end, n, _ in windows) / seconds
        ended = self.one(f"SELECT count(*) FROM rows WHERE status = 'ok' AND {self.inside('end_time', windows)}")
        sent = self.one(f"SELECT count(*) FROM rows WHERE {self.inside('(start_time + sent_ms / 1000)', windows)}")
        output, into = (
            self.rate(self.seconds_of("tokens"), windows),
            self.rate(self.seconds_of("input_tokens"), windows),
        )
        by_second: Counter[float] = Counter()
        for second, _, amount in self.seconds_of("tokens"):
            by_second[second] += amount
        whole = [s for start, end, *_ in windows for s in range(math.ceil(start), math.floor(end))]
        peak = max(whole, key=lambda second: (by_second[second], -second))
        characters = self.rate(self.lasting("characters"), windows)
        per_user = self.run["load"].get("rate_per_user")
        return {
            "seconds": seconds,
            "requests_per_s": ended / seconds,
            "asked_per_s": None if per_user is None else users * per_user,
            "due_per_s": self.one(f"SELECT count(*) FROM rows WHERE {cohort}") / seconds,
            "sent_per_s": sent / seconds,
            "inputs_per_s": None,
            "output_tokens_per_s": output,
            "input_tokens_per_s": into,
            "total_tokens_per_s": output + into,
            "characters_per_s": characters,
            "chunks_per_s": self.rate(self.lasting("chunks"), windows),
            "bytes_per_s": self.rate(self.lasting("bytes"), windows),
            "tokens_placed_by": "chunks",
            "peak_output_tokens_per_s": by_second[peak],
            "peak_second": float(peak),
            "requests_per_s_per_user": ended / seconds / users,
            "output_tokens_per_s_per_user": output / users,
            "characters_per_s_per_user": characters / users,
        }

    def concurrency(self, windows: Sequence[Window]) -> dict[str, Any]:
        query = f"""
            SELECT start_time + sent_ms / 1000 AS sent, coalesce(end_time, {self.end!r}) AS ended
            FROM rows WHERE sent IS NOT NULL AND ended > sent"""
        spans = self.ask(query)
        seconds = sum(end - start for start, end, *_ in windows)
        users = sum((end - start) * n for start, end, n, _ in windows) / seconds
        flying = self.rate([(sent, ended, ended - sent) for sent, ended in spans], windows)
        most, now = 0, 0
        for _, change in sorted([(sent, 1) for sent, _ in spans] + [(ended, -1) for _, ended in spans]):
            now += change
            most = max(most, now)
        return {
            "arrivals": self.run["load"]["arrivals"],
            "users_asked": self.run["load"]["users"],
            "users": users,
            "users_from": "boundaries",
            "in_flight": flying,
            "in_flight_from": "rows",
            "in_flight_max": most,
            "share": flying / users,
        }

    # Workers and machines

    def measured_lines(self) -> list[dict[str, Any]]:
        """Intervals whose middle is in a window."""
        middles = ((line["time"] - line["seconds"] / 2, line) for line in self.intervals)
        return [line for middle, line in middles if any(start <= middle < end for start, end, *_ in self.windows)]

    def histogram(self, what: str) -> dict[str, Any] | None:
        total = HdrHistogram(1, 3_600_000_000, 3)
        for text in (line[what] for line in self.measured_lines()):
            if text:
                total.add(HdrHistogram.decode(text.encode()))
        count = total.get_total_count()
        if not count:
            return None
        percentiles = [total.get_value_at_percentile(rank * 100) / 1e3 for rank in RANKS]
        found = {"count": count, "mean": total.get_mean_value() / 1e3, "std": total.get_stddev() / 1e3}
        found |= {"min": total.get_min_value() / 1e3} | dict(zip(NAMES, percentiles, strict=True))
        return found | {"max": total.get_max_value() / 1e3, "unsure": few(count)}

    def gaps(self) -> dict[str, Any] | None:
        return self.histogram("itl")

    def client(self, cohort: str) -> dict[str, Any]:
        lines = self.measured_lines()
        workers = [
            worker(index, [line for line in lines if line["worker"] == index])
            for index in sorted({line["worker"] for line in lines})
        ]
        gauges = ("cpu_percent", "loop_cpu_percent", "loop_wait_percent", "loop_lag_ms")
        worst = "gc_share gc_pause_max_ms ring_full_share steal_share throttled_share clock_jump_ms descriptors_share "
        clocks = f"SELECT clock, count(*) FROM rows WHERE {cohort} AND ttft_ms IS NOT NULL GROUP BY 1"
        return {
            "workers": len({line["worker"] for line in self.intervals}),
            "clocks": dict(self.ask(clocks)),
            "transports": dict(self.ask(f"SELECT transport, count(*) FROM rows WHERE {cohort} GROUP BY 1")),
            "client_lag_ms": self.distribution("client_lag_ms", cohort),
            "read_lag_ms": self.histogram("client_lag"),
            "merged_reads": sum(line["merged_reads"] for line in lines),
            "late_merged_reads": sum(line["late_merged_reads"] for line in lines),
            **{name: gauge([line[name] for line in lines]) for name in gauges},
            **{name: top(one[name] for one in workers) for name in (worst + "ports_share").split()},
            "tcp_trouble": tcp_trouble(self.run, lines),
            "by_worker": workers,
        }

    def hardware(self) -> list[dict[str, Any]]:
        scales = ", ".join(f"('{name}', {scale})" for name, scale in HARDWARE.items())
        query = f"""
            SELECT host, coalesce(device, ''), metric, avg(coalesce(mean, value) * scale),
                   min(coalesce(mean, value) * scale), max(coalesce(max, value) * scale),
                   stddev_samp(coalesce(mean, value) * scale), median(coalesce(mean, value) * scale),
                   quantile_cont(coalesce(mean, value) * scale, 0.95), count(*)
            FROM hardware JOIN (VALUES {scales}) AS scales(metric, scale) USING (metric)
            WHERE {self.inside("time", self.windows)} GROUP BY host, device, metric"""
        keys = "host device metric mean min max std p50 p95 samples"
        return [named(keys, found) or {} for found in self.ask(query)]


def named(names: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
    """None where there were none of them."""
    return dict(zip(names.split(), values, strict=True)) if values[0] else None


def few(count: int) -> list[str]:
    return [name for name, needed in FEWEST.items() if count < needed]
