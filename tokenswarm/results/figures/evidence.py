"""The values that the verdict's rules are applied to, taken from a run. The rules themselves are in `verdict.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from tokenswarm import ending
from tokenswarm.record import CANCELLED, one_line
from tokenswarm.results import flow
from tokenswarm.results.cohort import Cohort, Rows, among, ended_as, tally
from tokenswarm.results.distribution import PERCENTILES, unsure
from tokenswarm.results.figures import client_evidence, server, steadiness
from tokenswarm.results.flow import column
from tokenswarm.results.phases import Phases
from tokenswarm.results.read import Run
from tokenswarm.results.wording import number
from tokenswarm.verdict import Measured

SILENT_S: Final = 5.0
"""A worker that reported nothing for the last so many seconds of the load is lost."""
FAILING: Final = 0.05
FAR_BELOW: Final = 0.5
"""An answer shorter than this share of what was asked is short."""
FEW_TOKENS: Final = 2
USAGE_SLACK: Final = 0.03
"""Usage may be so many tokens, or this share of the chunks, below the chunks that came: each has at least a token."""
MOST_TOKENS_A_CHARACTER: Final = 4
"""A character has at most four bytes, and a token at least one."""
HIDDEN_TOKENS: Final = 16
"""The end of the text and its like are tokens without a character."""
CHECKED_TOKENS: Final = 64
"""What the check before a run, and whoever looks whether the server is alive, may have had generated."""


def collect(run: Run, phases: Phases, cohort: Rows, summary: dict[str, Any]) -> Iterator[Measured]:
    """Everything that can be measured of this run; a rule whose value cannot be is not asked."""
    ok = among(cohort, ended_as(cohort, "ok"))
    seen = ended_as(cohort, "cancelled") & (column(cohort, "chunks") > 0)  # by users who left: no fault of anybody's
    yield Measured(rule="no_ok_rows", value=len(ok) + int(seen.sum()))
    yield Measured(rule="no_steady_window", value=0.0 if phases.whole_run else max(1.0, phases.seconds))
    yield Measured(rule="rows_unaccounted", value=summary["requests"]["unaccounted"])
    yield Measured(rule="rows_lost", value=run.info.rows.lost + run.rows_damaged)
    yield Measured(rule="not_ended", value=0 if run.ended else 1)
    yield Measured(rule="intervals_missing", value=flow.missing_intervals(run))
    yield Measured(rule="several_levels", value=len({window.users for window in phases.windows}))
    if lost := lost_workers(run):
        yield Measured(rule="worker_lost", value=len(lost), subject=", ".join(lost))
    yield from _clocks(run)
    yield from _conduct(run, phases, cohort, len(ok))
    yield from _ttft(cohort, summary["latency"]["ttft_ms"])
    yield from _load(run, phases, cohort, summary)
    yield from _steadiness(run, phases)
    yield from _answers(run, ok)
    yield from _usage(ok)
    yield from _server_counter(run)
    load_is_known = _open_loop(run) or _never_idle(run, phases, cohort)
    yield from client_evidence.collect(run, phases, summary["client"], load_is_known)


def _conduct(run: Run, phases: Phases, cohort: Rows, succeeded: int) -> Iterator[Measured]:
    """Whether the run was one: long enough, to its end, and of what was meant."""
    if succeeded:
        yield Measured(rule="few_requests", value=succeeded)
    if len(cohort):
        yield Measured(rule="cut_by_the_stop", value=float(ended_as(cohort, "incomplete").mean()))
        yield Measured(rule="mostly_failed", value=_failed_share(cohort), subject=_commonest_error(cohort))
    if exceptions := run.info.user_exceptions:
        count = sum(exception.count for exception in exceptions)
        yield Measured(rule="user_exceptions", value=count, subject=one_line(exceptions[0].message)[:200])
    settling = phases.settling
    if settling.seconds < settling.wanted and not phases.whole_run:
        yield Measured(
            rule="settling_cut", value=settling.seconds / settling.wanted, subject=f"{settling.wanted:.3g} s"
        )
    stops = [boundary.time for boundary in run.info.boundaries if boundary.event == "stopping"]
    asked = run.info.load.run_time
    if stops and asked and run.info.ended_by not in ending.BY_ITSELF:
        yield Measured(rule="stopped_early", value=(stops[0] - phases.start) / asked)


def _failed_share(cohort: Rows) -> float:
    stayed = ~ended_as(cohort, "cancelled")
    return float(ended_as(cohort, "failed", "timeout")[stayed].mean()) if stayed.any() else 0.0


def _commonest_error(cohort: Rows) -> str:
    return next((name for name in tally(cohort["error_class"]) if name), "")


def lost_workers(run: Run) -> list[str]:
    """Workers that the master knows as lost, and those whose last interval is long before the load's end, while others
    still reported."""
    lost = {worker.index for worker in run.info.workers if worker.status == "lost"}
    if not run.intervals.empty:
        last = run.intervals.groupby("worker")["time"].last()
        stops = [boundary.time for boundary in run.info.boundaries if boundary.event in ("stopping", "stopped")]
        until = min([float(last.max()), *stops]) - SILENT_S
        lost |= set(last.index[last < until].astype(int))
    return [f"worker {index}" for index in sorted(lost)]


def _clocks(run: Run) -> Iterator[Measured]:
    """How far the workers' clocks are off the master's, and how well that is known; each of the worst of them."""
    for rule, name in (("clock_uncertain", "clock_uncertainty_ms"), ("clock_off", "clock_offset_ms")):
        known = [(abs(value), worker.index) for worker in run.info.workers if (value := getattr(worker, name))]
        if known:
            value, index = max(known)
            yield Measured(rule=rule, value=value, subject=f"worker {index}")


def _ttft(cohort: Rows, ttft: dict[str, Any] | None) -> Iterator[Measured]:
    if ttft is None:
        return
    for name in PERCENTILES:
        if name not in ttft["unsure"] and ttft[name] > 0:
            width = ttft[name] - ttft["low"][name]
            yield Measured(rule="ttft_bounds", value=width / ttft[name], absolute=width, subject=name)
    # Whoever leaves closes the connection, and whoever opens the next one pays for that, not for a client that is slow.
    counts = cohort["ttft_ms"].notna()
    if ended_as(cohort, CANCELLED).any():
        said = cohort["conn_reused"]
        counts &= said.isin([text for text in said.unique() if text.lower() == "true"])
    before = flow.before_sent_ms(cohort)[counts.to_numpy()]
    before = before[~np.isnan(before)]
    if len(before) and ttft["p50"] > 0:
        # p99 by rights; of few rows that would be their one worst, so then the highest percentile they can tell.
        name = next((name for name in ("p99", "p95") if name not in unsure(len(before))), "p50")
        delay = float(np.percentile(before, PERCENTILES[name]))
        yield Measured(rule="send_delay", value=delay / ttft["p50"], absolute=delay, subject=name)


def _steadiness(run: Run, phases: Phases) -> Iterator[Measured]:
    found = max(steadiness.changes(run, phases), key=lambda change: change.share, default=None)
    if found is not None:
        went = f"{found.what} went from {number(found.first)}{found.unit} to {number(found.second)}{found.unit}"
        size = abs(found.second - found.first) if found.unit.strip() == "ms" else None
        yield Measured(rule="no_steady_state", value=found.share, absolute=size, subject=went)


def _load(run: Run, phases: Phases, cohort: Rows, summary: dict[str, Any]) -> Iterator[Measured]:
    if phases.whole_run or not len(cohort):
        return
    if _open_loop(run):
        yield Measured(rule="sent_share", value=float((~ended_as(cohort, "shed")).mean()))
        lag = cohort["queue_ms"][cohort["parent"] == ""].dropna()  # a retry is due when its request was
        if len(lag):
            yield Measured(rule="schedule_lag", value=float(np.percentile(lag, 99)))
        return
    share, users = summary["concurrency"]["share"], summary["concurrency"]["users"]
    if share is not None and _never_idle(run, phases, cohort):
        idle_ms = (1 - share) * users * phases.seconds * 1e3 / len(cohort)
        yield Measured(rule="in_flight_share", value=share, absolute=idle_ms)


def _open_loop(run: Run) -> bool:
    return run.info.load.arrivals != "closed"


def _never_idle(run: Run, phases: Phases, cohort: Rows) -> bool:
    """Whether every user should have a request in flight all the time: none thinks, and hardly any fails. Users that
    fail at once are seldom in flight, which is not the client's fault."""
    if phases.whole_run or not len(cohort) or _failed_share(cohort) >= FAILING:
        return False
    return bool(run.info.user_classes) and not any(user.think_time for user in run.info.user_classes)


def _answers(run: Run, ok: Cohort) -> Iterator[Measured]:
    streamed = ok.among(~np.isnan(column(ok, "ttft_ms")))
    if len(streamed):
        yield Measured(rule="user_clock", value=float((streamed["clock"] == "user").mean()))
    told = ok.among(~np.isnan(column(ok, "output_tokens")))
    if not len(told):
        return
    yield Measured(rule="tokens_estimated", value=float((told["token_source"] == "chunks").mean()))
    tokens, asked = told["output_tokens"], told["asked_output_tokens"]
    generating = told["ttft_ms"].notna() | (tokens > 0)
    more_asked = generating & ~(asked <= 1)
    if more_asked.any():
        yield Measured(rule="tiny_outputs", value=float((tokens <= 1)[more_asked].mean()))
    if asked.notna().any():
        short = (tokens < FAR_BELOW * asked) & (tokens > 1)
        fixed = _length_was_fixed(run, told)
        for rule, of in (("short_outputs", fixed & asked.notna()), ("early_stops", ~fixed & asked.notna())):
            if of.any():
                yield Measured(rule=rule, value=float(short[of].mean()))


def _usage(ok: Cohort) -> Iterator[Measured]:
    """The server's usage against what came."""
    streamed = ok.among(((ok["chunks"] > 0) & (ok["token_source"] != "")).to_numpy())
    told = streamed.among((streamed["token_source"] == "usage").to_numpy())
    if len(told):
        tokens, chunks = told["output_tokens"], told["chunks"]
        fewer = chunks - tokens > np.maximum(FEW_TOKENS, USAGE_SLACK * chunks)
        seen = tokens - told["reasoning_tokens"].fillna(0)
        more = seen > MOST_TOKENS_A_CHARACTER * told["output_chars"] + HIDDEN_TOKENS
        subject = f"{fewer.sum():,} too few, {more.sum():,} too many"
        yield Measured(rule="usage_disagrees", value=float((fewer | more).mean()), subject=subject)
    if len(streamed):
        none_of_it = (streamed["token_source"] != "usage") & streamed["input_tokens"].notna()
        yield Measured(rule="usage_zero", value=float(none_of_it.mean()))


def _server_counter(run: Run) -> Iterator[Measured]:
    """The server's counter of generated tokens against its usage, of the whole run."""
    if (found := server.generated(run)) is None:
        return
    far = max(found.least - found.made, found.made - found.most, 0.0)
    told = found.least if found.made < found.least else found.most
    if told > 0:
        share = far / told if far > found.unsure + CHECKED_TOKENS else 0.0
        subject = f"{found.made:,.0f} tokens against {told:,.0f}"
        yield Measured(rule="usage_against_counter", value=share, subject=subject)


def _length_was_fixed(run: Run, rows: Cohort) -> pd.Series[bool]:
    """Of each row, whether the server was told to go on to the asked length; else that is a limit, and stopping is no
    fault."""
    body = run.info.options.get("extra_body")
    if isinstance(body, dict) and body.get("ignore_eos"):
        return pd.Series(True, index=rows.index)
    everybody = bool(run.info.options.get("ignore_eos"))
    given = {user.name: bool(user.options.get("ignore_eos", everybody)) for user in run.info.user_classes}
    otherwise = rows["user_class"].isin([name for name, own in given.items() if own != everybody])
    return ~otherwise if everybody else otherwise
