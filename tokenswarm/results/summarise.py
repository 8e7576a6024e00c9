"""A run's figures, as METRICS.md defines them: what `summary.json` holds. Milliseconds, seconds, tokens, shares of 1.

None means "not measured" and is never 0.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from tokenswarm import __version__, rules, verdict
from tokenswarm.record import STATUSES
from tokenswarm.results import distribution, flow, hardware
from tokenswarm.results.cohort import Cohort, Rows, ended_as, tally
from tokenswarm.results.distribution import Distribution
from tokenswarm.results.figures import (
    against,
    breakdown,
    by_worker,
    capacity,
    client,
    energy,
    evidence,
    first_errors,
    goals,
    gpus,
    server,
    slowest,
    stalls,
    tokens,
    turns,
)
from tokenswarm.results.flow import Flow, Flows, Instants, column
from tokenswarm.results.phases import Phase, Phases, find, intended
from tokenswarm.results.read import Run

SUMMARY_FILE: Final = "summary.json"

FIRST_TOKEN_CAME: Final = ("ttft_ms", "ttft_sent_ms", "ttft_due_ms")
OF_OK_ROWS: Final = ("ttfo_ms", "ttst_ms", "tpot_ms", "e2e_ms", "last_token_ms", "output_tps", "decode_tps")
OF_SENT_ROWS: Final = ("queue_ms", "pool_ms", "dns_ms", "tcp_ms", "tls_ms", "send_ms", "headers_ms")
OF_WINDOWS: Final = ("ttft_ms", "tpot_ms", "e2e_ms")
OF_ERRORS: Final = ("error_class", "error", "start_time", "end_time", "http_status")
OF_THE_SERVER: Final = ("server_total_ms", "server_load_ms", "server_prompt_ms", "server_decode_ms")
EXAMPLES: Final = 3


def summarise(run: Run) -> dict[str, Any]:
    """All figures of a run and its verdict, as values that JSON knows."""
    phases = find(run)
    due = intended(run)
    cohort = Cohort(run.rows, phases.contain(due))
    flows = flow.flows(run, phases.end)
    defects = list(run.defects)
    with ThreadPoolExecutor(1) as beside:  # numpy does most of its work without Python's lock
        others = beside.submit(_others, run, phases, cohort)
        summary: dict[str, Any] = {
            "schema": 1,
            "made_by": f"tokenswarm {__version__}",
            "run": _run(run, phases),
            "verdict": None,
            "defects": defects,
            "phases": _phases(phases),
            "requests": {"all": _statuses(run.rows), "cohort": _statuses(cohort)},
            "questions": breakdown.questions(run.rows),
            "errors": first_errors.added(_errors(run, cohort, phases), run.rows, phases),
            "latency": latencies(cohort) | {"itl_ms": _itl(run, phases, defects)},
            "throughput": throughput(run, phases, cohort, flows),
            "concurrency": concurrency(run, phases, flows),
            "tokens": tokens.figures(run, cohort),
            "client": client.figures(run, phases, cohort, defects),
            "windows": [],
            "groups": {},
            "workers_apart": [],
            "slowest": {},
            "stalls": None,
            "turns": None,
            "capacity": capacity.figures(run.info.capacity),
            "slo": goals.objectives(run, cohort, defects),
            "goodput": goals.goodput(run, cohort, phases.seconds, defects),
            "hardware": [],
            "gpus": [],
            "energy": energy.of_run(run, phases),
            "against": {},
            "server": server.figures(run, phases, flows),
        }
        summary |= others.result()
    summary["per_gpu"] = gpus.served(len(summary["energy"]["gpus"]) if summary["energy"] else 0, summary["throughput"])
    if phases.note:
        defects.append(phases.note)
    summary["windows"] = _windows(run, phases, due, flows, summary)
    summary["requests"]["unaccounted"] = flows.unaccounted
    judged = verdict.judge(evidence.collect(run, phases, cohort, summary), _measured_metrics(summary))
    summary["verdict"] = msgspec.json.decode(msgspec.json.encode(judged))
    return summary


def _others(run: Run, phases: Phases, cohort: Cohort) -> dict[str, Any]:
    """What nothing else is made of."""
    return {
        "groups": breakdown.groups(cohort) | by_worker.group(run, phases, cohort),
        "workers_apart": by_worker.apart(cohort),
        "slowest": slowest.figures(run, phases, cohort),
        "stalls": stalls.figures(run, phases),
        "turns": turns.figures(cohort),
        "hardware": hardware.figures(run.hardware[phases.contain(column(run.hardware, "time"))]),
        "gpus": gpus.together(run.hardware, phases),
        "against": against.figures(run, phases),
    }


def write(summary: dict[str, Any], directory: Path) -> Path:
    """Write summary.json in one step, so that no reader sees half of it. Raises OSError."""
    path = directory / SUMMARY_FILE
    write_atomically(path, msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n")
    return path


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content as a whole. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def latencies(cohort: Rows) -> dict[str, Distribution | None]:
    """Distributions of the row columns, each over its own population."""
    ok = ended_as(cohort, "ok")
    found = {name: distribution.of(column(cohort, name)) for name in FIRST_TOKEN_CAME}
    found["ttft_ms"] = distribution.of(column(cohort, "ttft_ms"), column(cohort, "ttft_low_ms"))
    found |= {name: distribution.of(column(cohort, name)[ok]) for name in OF_OK_ROWS}
    found |= {name: distribution.of(column(cohort, name)) for name in OF_SENT_ROWS}
    found["sent_ms"] = distribution.of(flow.before_sent_ms(cohort))
    found |= {name: distribution.of(column(cohort, name)[ok]) for name in OF_THE_SERVER}
    return found


def throughput(run: Run, phases: Phases, cohort: Rows, flows: Flows) -> dict[str, Any]:
    """Rates over the windows. Requests and the inputs they embedded count when they ended, tokens when their chunks
    arrived; edge seconds of a window count in proportion."""
    seconds = phases.seconds
    ended_ok, _ = _inside(flows.succeeded, phases)
    told, inputs = _inside(flows.inputs, phases)
    sent, _ = _inside(flows.sent, phases)
    output, into = flows.output_tokens, flows.input_tokens
    rates: dict[str, Any] = {
        "seconds": seconds,
        "requests_per_s": ended_ok / seconds,
        "asked_per_s": None,
        "due_per_s": len(cohort) / seconds,
        "sent_per_s": sent / seconds,
        "inputs_per_s": inputs / seconds if told else None,
        "output_tokens_per_s": _rate(output, phases),
        "input_tokens_per_s": _rate(into, phases),
        "total_tokens_per_s": None,
        "characters_per_s": _rate(flows.characters, phases),
        "chunks_per_s": _rate(flows.chunks, phases),
        "bytes_per_s": _rate(flows.bytes, phases),
        "tokens_placed_by": flows.placed_by or None,
        "peak_output_tokens_per_s": None,
        "peak_second": None,
    }
    if output is not None and into is not None:
        rates["total_tokens_per_s"] = rates["output_tokens_per_s"] + rates["input_tokens_per_s"]
    if output is not None:
        rates |= _peak(output, phases)
    users, _ = _users(run, phases)
    if run.info.load.rate_per_user is not None and users is not None:
        rates["asked_per_s"] = users * run.info.load.rate_per_user
    for name in ("requests_per_s", "output_tokens_per_s", "characters_per_s"):
        known = rates[name] is not None and users
        rates[f"{name}_per_user"] = rates[name] / users if known else None
    return rates


def concurrency(run: Run, phases: Phases, flows: Flows) -> dict[str, Any]:
    """Users and requests in flight (sent to end), means over the windows; `share` = in flight / users.

    With requests that have no row (a killed run) the workers' own count is taken: theirs includes those.
    """
    users, users_from = _users(run, phases)
    spans = flows.in_flight
    mean, source = None, None
    if spans is not None:
        mean, source = sum(spans.between(w.start, w.end) for w in phases.windows) / phases.seconds, "rows"
    if flows.unaccounted and (gauge := _gauge(run, phases, "in_flight")) is not None:
        mean, source = gauge, "intervals"
    return {
        "arrivals": run.info.load.arrivals,
        "users_asked": run.info.load.users,
        "users": users,
        "users_from": users_from,
        "in_flight": mean,
        "in_flight_from": source,
        "in_flight_max": round(spans.highest_rate()) if spans is not None else None,
        "share": mean / users if mean is not None and users else None,
    }


def _rate(amounts: Flow | None, phases: Phases) -> float | None:
    if amounts is None:
        return None
    return sum(amounts.between(window.start, window.end) for window in phases.windows) / phases.seconds


def _inside(instants: Instants, phases: Phases) -> tuple[int, float]:
    """How many are in the windows, and the sum of their amounts."""
    found = [instants.between(window.start, window.end) for window in phases.windows]
    return sum(count for count, _ in found), sum(amount for _, amount in found)


def _peak(tokens: Flow, phases: Phases) -> dict[str, Any]:
    """The whole second inside a window with the most output tokens."""
    found = [busiest for w in phases.windows if (busiest := tokens.busiest_second(w.start, w.end))]
    if not found:
        return {}
    second, amount = max(found, key=itemgetter(1))
    return {"peak_output_tokens_per_s": amount, "peak_second": second}


def _users(run: Run, phases: Phases) -> tuple[float | None, str | None]:
    known = [window.users for window in phases.windows if window.users is not None]
    if not phases.whole_run and len(known) == len(phases.windows):
        weighted = sum((window.users or 0) * window.seconds for window in phases.windows)
        return weighted / phases.seconds, "boundaries"
    mean = _gauge(run, phases, "users")
    return mean, None if mean is None else "intervals"


def _gauge(run: Run, phases: Phases, name: str) -> float | None:
    """The mean over the windows, summed over the workers: each interval counts for as long as it lasted."""
    lines = run.intervals[run.intervals[name].notna()]
    ends = column(lines, "time")
    starts = ends - column(lines, "seconds")
    inside = sum(np.clip(np.minimum(ends, w.end) - np.maximum(starts, w.start), 0, None) for w in phases.windows)
    covered = pd.Series(inside, index=lines.index).groupby(lines["worker"]).sum().max()
    return float((column(lines, name) * inside).sum() / covered) if covered > 0 else None


def _measured_metrics(summary: dict[str, Any]) -> list[str]:
    latency, rates = summary["latency"], summary["throughput"]
    measured = {
        rules.TTFT: latency["ttft_ms"],
        rules.TPOT: latency["tpot_ms"],
        rules.ITL: latency["itl_ms"],
        rules.E2E: latency["e2e_ms"],
        rules.THROUGHPUT: rates["requests_per_s"] or rates["output_tokens_per_s"],
        rules.CONCURRENCY: summary["concurrency"]["in_flight"],
    }
    return [name for name in rules.METRICS if measured[name]]


def _run(run: Run, phases: Phases) -> dict[str, Any]:
    info = run.info
    kept = ("label", "suite", "host", "command", "target", "options", "seed", "user_classes", "load", "workers")
    described = {name: msgspec.to_builtins(getattr(info, name)) for name in kept}
    protocols = [name for name in run.rows["protocol"].unique() if name]
    models = [name for name in run.rows["model"].unique() if name]
    return described | {
        "run_id": run.name,
        "start": phases.start,
        "end": phases.end,
        "start_utc": info.start.utc if info.start else None,
        "end_utc": info.end.utc if info.end else None,
        "seconds": phases.end - phases.start,
        "ended": run.ended,
        "ended_by": info.ended_by,
        "protocols": protocols or [info.target.protocol] if info.target.protocol else protocols,
        "models": models or ([info.target.model] if info.target.model else []),
    }


def _phases(phases: Phases) -> dict[str, Any]:
    def told(phase: Phase) -> dict[str, Any]:
        return {name: getattr(phase, name) for name in ("kind", "start", "end", "users", "step")}

    return {
        "warmup_s": None if phases.settling.requests else phases.settling.seconds,
        "settling": str(phases.settling),
        "whole_run": phases.whole_run,
        "note": phases.note,
        "seconds": phases.seconds,
        "windows": [told(window) for window in phases.windows],
        "all": [told(phase) for phase in phases.phases],
        "steps": [asdict(step) for step in phases.steps],
    }


def _statuses(rows: Rows) -> dict[str, int]:
    counts = tally(rows["status"])
    return {"due": len(rows)} | {status: counts.get(status, 0) for status in STATUSES}


def _errors(run: Run, cohort: Rows, phases: Phases) -> list[dict[str, Any]]:
    """Errors by class, over all rows, the most frequent first, with their share of those whose users stayed; seconds
    since the run's start."""
    stayed = int((run.rows["status"] != "cancelled").sum())
    rows = run.rows.loc[run.rows["error_class"] != "", list(OF_ERRORS)]
    in_cohort = tally(cohort["error_class"])
    found = []
    for name, count in tally(rows["error_class"]).items():
        of_class = rows[rows["error_class"] == name]
        messages = islice(tally(of_class["error"]).items(), EXAMPLES)
        times = of_class["end_time"].fillna(of_class["start_time"]).dropna() - phases.start
        found.append(
            {
                "class": name,
                "count": count,
                "share": count / stayed,
                "cohort": in_cohort.get(name, 0),
                "first_s": float(times.min()) if len(times) else None,
                "last_s": float(times.max()) if len(times) else None,
                "http_statuses": sorted({int(status) for status in of_class["http_status"].dropna()}),
                "examples": [{"message": text, "count": n} for text, n in messages if text],
            }
        )
    return found


def _itl(run: Run, phases: Phases, defects: list[str]) -> Distribution | None:
    try:
        return distribution.of_histogram(client.gaps(run, phases))
    except ValueError as error:
        defects.append(f"ITL could not be read from the intervals: {error}.")
        return None


def _windows(run: Run, phases: Phases, due: flow.Floats, flows: Flows, whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Headline figures of each steady window; of the only one, those of the `whole` summary."""
    if len(phases.windows) == 1:
        latency = {name: whole["latency"][name] for name in OF_WINDOWS}
        rates = {name: whole[name] for name in ("throughput", "concurrency", "slo", "goodput")}
        return [_told(phases, phases.windows[0]) | {"requests": whole["requests"]["cohort"]} | latency | rates]
    found = []
    for window in phases.windows:
        only = replace(phases, windows=(window,))
        rows = Cohort(run.rows, only.contain(due))
        ok = (rows["status"] == "ok").to_numpy()
        figures = {
            "requests": _statuses(rows),
            "ttft_ms": distribution.of(column(rows, "ttft_ms"), column(rows, "ttft_low_ms")),
            "tpot_ms": distribution.of(column(rows, "tpot_ms")[ok]),
            "e2e_ms": distribution.of(column(rows, "e2e_ms")[ok]),
            "throughput": throughput(run, only, rows, flows),
            "concurrency": concurrency(run, only, flows),
            "slo": goals.objectives(run, rows, []),
            "goodput": goals.goodput(run, rows, only.seconds, []),
        }
        found.append(_told(phases, window) | figures)
    return found


def _told(phases: Phases, window: Phase) -> dict[str, Any]:
    step = window.step if phases.steps and not phases.whole_run else None
    return {"start": window.start, "end": window.end, "users": window.users, "step": step}
