"""Energy a token: what the GPU boards used in the steady windows, over the tokens that came in them.

All GPUs that were given count, idle ones too. Hosts, switches and cooling are not in it: "GPU boards only".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from tokenswarm.errors import AnalysisError
from tokenswarm.results import flow, hardware
from tokenswarm.results.figures import joules
from tokenswarm.results.figures.joules import COUNTER, INSTANT, POWER, Readings, Unknown
from tokenswarm.results.phases import Phase, Phases
from tokenswarm.results.read import Run

SCOPE: Final = "GPU boards only"
SHORTEST_S: Final = 30.0
"""Of a window: counters and sensors are too coarse for less."""
SHORTEST_IDLE_S: Final = 10.0
"""Of the samples before the first request, for what the GPUs use when idle."""
MOST_APART: Final = 0.05
"""Of counter and integrated power, as a share of the counter's joules."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that counts, and its readings by metric: COUNTER, INSTANT, POWER."""

    device: str
    name: str
    readings: dict[str, Readings]

    @property
    def method(self) -> str:
        """The metric that its energy is taken from; empty if it tells none."""
        return next((metric for metric in (COUNTER, INSTANT, POWER) if metric in self.readings), "")

    def joules(self, start: float, end: float) -> float:
        """In [start, end]. Raises Unknown."""
        if not self.method:
            raise Unknown("it tells neither its energy nor its power")
        told = self.readings[self.method]
        return joules.by_counter(told, start, end) if self.method == COUNTER else joules.by_power(told, start, end)

    def joules_by_power(self, start: float, end: float) -> float | None:
        """The integral of its power, beside the counter's; None where it cannot be had."""
        metric = next((metric for metric in (INSTANT, POWER) if metric in self.readings), None)
        if metric is None or self.method != COUNTER:
            return None
        try:
            return joules.by_power(self.readings[metric], start, end)
        except Unknown:
            return None


@dataclass(frozen=True)
class Wish:
    """What is asked beyond the run. `gpus`: UUIDs or beginnings of them, or names as `gpu1/gpu0`; all if empty.
    `idle_watts`: of all these together, model loaded; measured before the load if None. Price in any currency.
    `gpu_count`: how many are paid for; those that count if None."""

    gpus: tuple[str, ...] = ()
    idle_watts: float | None = None
    price_per_gpu_hour: float | None = None
    gpu_count: int | None = None


def figures(run: Run, phases: Phases, wish: Wish = Wish(), samples: pd.DataFrame | None = None) -> dict[str, Any]:
    """Energy, energy a token and cost of each window and of all together, as values that JSON knows; None: unknown.

    `samples`: of hardware, if not the run's own. `gpus` is empty where no GPU was sampled. `notes` say what is unknown
    and why, and what to doubt. Raises AnalysisError if a GPU that was asked for is ambiguous, or none that is known.
    """
    notes: list[str] = []
    found = gpus(run, run.hardware if samples is None else samples, wish.gpus)
    idle, source = _idle(run, found, wish, notes)
    tokens = flow.output_tokens(run)[0], flow.input_tokens(run)
    windows = [_window(window, found, tokens, idle, wish, notes) for window in phases.windows]
    if phases.note:
        notes.append(phases.note)
    if (run.rows["token_source"] == "chunks").any():
        notes.append("Some output tokens are an estimate: the server told no number, and chunks were counted.")
    return {
        "scope": SCOPE,
        "gpus": [{"device": gpu.device, "name": gpu.name, "method": gpu.method or None} for gpu in found],
        "idle_watts": idle,
        "idle_from": source,
        "price_per_gpu_hour": wish.price_per_gpu_hour,
        "windows": windows,
        "all": _together(windows, len(found), idle, wish),
        "notes": list(dict.fromkeys(notes)),
    }


def of_run(run: Run, phases: Phases) -> dict[str, Any] | None:
    """The figures of all GPUs that were sampled; None without any."""
    found = figures(run, phases)
    return found if found["gpus"] else None


def gpus(run: Run, samples: pd.DataFrame, asked: Sequence[str]) -> list[Gpu]:
    """Those that were asked for, or all that are known: from run.json, and by having energy or power. Where none is
    known, those that were asked for are in it without readings. Raises AnalysisError."""
    names = hardware.names(run.info.scraped)
    known = {device: name for (_, device), name in names.items()}
    told = samples[samples["metric"].isin([COUNTER, INSTANT, POWER])]
    for host, device in told[["host", "device"]].drop_duplicates().itertuples(index=False):
        known.setdefault(str(device), names.get((str(host), str(device)), f"{host}/{device}"))
    chosen = [_one(wanted, known) for wanted in asked] if asked else sorted(known, key=lambda device: known[device])
    metrics = told.groupby(["device", "metric"], observed=True, sort=False)
    read: dict[str, dict[str, Readings]] = {device: {} for device in chosen}
    for (device, metric), group in metrics:
        if str(device) in read:
            read[str(device)][str(metric)] = joules.readings(group)
    return [Gpu(device, known.get(device, device), read[device]) for device in dict.fromkeys(chosen)]


def _one(wanted: str, known: dict[str, str]) -> str:
    fits = [device for device, name in known.items() if wanted in (device, name)]
    fits = fits or [
        device for device, name in known.items() if device.startswith(wanted) or name.endswith(f"/{wanted}")
    ]
    if len(fits) > 1:
        raise AnalysisError(f"--gpus {wanted} may be any of {', '.join(known[fit] for fit in fits)}: write more of it")
    if known and not fits:
        raise AnalysisError(f"--gpus {wanted} is none of the GPUs that are known: {', '.join(sorted(known.values()))}")
    return fits[0] if fits else wanted


def _idle(run: Run, found: list[Gpu], wish: Wish, notes: list[str]) -> tuple[float | None, str | None]:
    """Watts of all GPUs together without load, and where they come from."""
    if wish.idle_watts is not None:
        return wish.idle_watts, "given"
    begin = run.rows["start_time"].min()
    firsts = [gpu.readings[gpu.method].times[0] for gpu in found if gpu.method]
    if not firsts or len(firsts) < len(found) or pd.isna(begin) or begin - max(firsts) < SHORTEST_IDLE_S:
        return None, None
    try:
        total = sum(gpu.joules(max(firsts), float(begin)) for gpu in found)
    except Unknown as error:
        notes.append(f"What the GPUs use when idle is unknown: before the load of one, {error}.")
        return None, None
    return float(total / (begin - max(firsts))), "measured"


def _window(
    window: Phase,
    found: list[Gpu],
    tokens: tuple[flow.Flow | None, flow.Flow | None],
    idle: float | None,
    wish: Wish,
    notes: list[str],
) -> dict[str, Any]:
    start, end = _sampled(window, found)
    each = [_of_gpu(gpu, start, end, notes) for gpu in found]
    total = sum(one["joules"] for one in each) if each and all(one["joules"] is not None for one in each) else None
    if total is not None and window.seconds < SHORTEST_S:
        notes.append(f"A window of {window.seconds:.1f} s is too short for energy: it takes {SHORTEST_S:g} s.")
        total = None
    amounts = [None if each_flow is None else each_flow.between(start, end) for each_flow in tokens]
    told = _ratios(end - start, total, amounts[0], amounts[1], len(found), idle, wish)
    if told["joules"] is not None and idle is not None and told["net_joules"] is None:
        notes.append(f"Idle GPUs would have used {idle:,.0f} W, not less than the window's {told['watts']:,.0f} W.")
    return {"start": start, "end": end, "users": window.users, **told, "gpus": each}


def _sampled(window: Phase, found: list[Gpu]) -> tuple[float, float]:
    """The window; less what is without samples at its edges, if that is no longer than a gap may be."""
    told = [gpu.readings[gpu.method].times for gpu in found if gpu.method]
    first = max((times[0] for times in told), default=window.start)
    last = min((times[-1] for times in told), default=window.end)
    start = float(first) if window.start < first <= window.start + joules.LONGEST_GAP_S else window.start
    end = float(last) if window.end - joules.LONGEST_GAP_S <= last < window.end else window.end
    return start, max(start, end)


def _of_gpu(gpu: Gpu, start: float, end: float, notes: list[str]) -> dict[str, Any]:
    used, apart, why = None, None, None
    try:
        used = gpu.joules(start, end)
        if used > 0 and (beside := gpu.joules_by_power(start, end)) is not None:
            apart = beside / used - 1
    except Unknown as error:
        why = str(error)
        notes.append(f"The energy of {gpu.name} is unknown: {why}.")
    if apart is not None and abs(apart) > MOST_APART:
        notes.append(f"{gpu.name}: its integrated power is {apart:+.1%} off its energy counter: doubt one of them.")
    if why is None and gpu.method != COUNTER:
        notes.append(f"{gpu.name} has no energy counter: its energy is the integral of {gpu.method}.")
    return {"device": gpu.device, "name": gpu.name, "joules": used, "power_off_by": apart, "why": why}


def _ratios(
    seconds: float,
    used: float | None,
    output: float | None,
    into: float | None,
    count: int,
    idle: float | None,
    wish: Wish,
) -> dict[str, Any]:
    total = None if output is None or into is None else output + into
    net = used - idle * seconds if used is not None and idle is not None and used > idle * seconds else None
    price = wish.price_per_gpu_hour
    paid = count if wish.gpu_count is None else wish.gpu_count
    cost = price * paid * seconds / 3600 if price is not None and paid else None
    return {
        "seconds": seconds,
        "output_tokens": output,
        "total_tokens": total,
        "joules": used,
        "watts": used / seconds if used is not None and seconds else None,
        "joules_per_output_token": _over(used, output),
        "joules_per_total_token": _over(used, total),
        "output_tokens_per_joule": _over(output, used),
        "total_tokens_per_joule": _over(total, used),
        "net_joules": net,
        "net_joules_per_output_token": _over(net, output),
        "net_joules_per_total_token": _over(net, total),
        "net_output_tokens_per_joule": _over(output, net),
        "cost": cost,
        "cost_per_million_output_tokens": _over(None if cost is None else cost * 1e6, output),
        "cost_per_million_total_tokens": _over(None if cost is None else cost * 1e6, total),
    }


def _over(amount: float | None, by: float | None) -> float | None:
    return amount / by if amount is not None and by else None


def _together(windows: list[dict[str, Any]], count: int, idle: float | None, wish: Wish) -> dict[str, Any]:
    """All windows; unknown as soon as one is."""

    def total(name: str) -> float | None:
        known = [window[name] for window in windows if window[name] is not None]
        return sum(known) if windows and len(known) == len(windows) else None

    seconds, output, tokens = total("seconds") or 0.0, total("output_tokens"), total("total_tokens")
    into = None if output is None or tokens is None else tokens - output
    return _ratios(seconds, total("joules"), output, into, count, idle, wish)
