"""The levels for programs: CSV and JSON. Milliseconds, seconds, shares of 1; what is not known is empty, never 0."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import msgspec

from tokenswarm.record import guard
from tokenswarm.results.compare import metrics
from tokenswarm.results.sweep import wording
from tokenswarm.results.sweep.cautions import cautions
from tokenswarm.results.sweep.curve import TOKENS, Curve, Sweep
from tokenswarm.results.sweep.levels import Level

_ENERGY: Final = (
    "watts",
    "output_tokens_per_joule",
    "net_output_tokens_per_joule",
    "total_tokens_per_joule",
    "cost_per_million_output_tokens",
    "cost_per_million_total_tokens",
)
_BOUNDED: Final = "ttft"
_DEMANDING: Final = ("p95", "p99", "p99.9")


def as_csv(sweep: Sweep) -> str:
    """Every figure of every level in base units, what is unknown empty."""
    table = [_record(sweep, curve, index) for curve, index in sweep.places()]
    out = io.StringIO()
    writer = csv.DictWriter(out, table[0], lineterminator="\n")
    writer.writeheader()
    for record in table:
        writer.writerow({name: _plain_value(value) for name, value in record.items()})
    return out.getvalue().rstrip("\n")


def as_json(sweep: Sweep) -> str:
    """The same, curve by curve, with knee, answers and cautions."""
    found = {
        "schema": 1,
        "latency": sweep.latency.name,
        "throughput": f"{'output_tokens' if sweep.throughput == TOKENS else 'requests'}_per_s",
        "trust": sweep.trust,
        "goals": list(sweep.goals),
        "limits": list(sweep.limits),
        "price_per_gpu_hour": sweep.price,
        "curves": [
            {
                "curve": curve.name,
                "answers": [str(answer) for answer in wording.answers(sweep, curve)],
                "no_knee": curve.knee.why or None,
                "levels": [
                    _record(sweep, curve, index) | {"reasons": [reason.text for reason in level.reasons]}
                    for index, level in enumerate(curve.levels)
                ],
            }
            for curve in sweep.curves
        ],
        "cautions": list(cautions(sweep)),
        "unread": list(sweep.unread),
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def _record(sweep: Sweep, curve: Curve, index: int) -> dict[str, Any]:
    """All figures of a level by their names: shares of 1, milliseconds, seconds."""
    level = curve.levels[index]
    found: dict[str, Any] = {
        "curve": curve.name,
        "load": wording.load(level),
        "loop": "open" if level.open_loop else "closed",
        "users": level.users,
        "asked_per_s": level.rate,
        "due_per_s": level.rates["due"],
        "sent_per_s": level.rates["sent"],
        "requests_per_s": level.rates["ended"],
        "users_running": level.means["users"],
        "in_flight": level.means["in_flight"],
        "runs": len(level.runs),
        "seconds": level.seconds,
        "due": level.due,
        "ok": level.statuses.get("ok", 0),
        "failed": level.failed,
        "output_tokens_per_s": level.rates["output_tokens"],
        "input_tokens_per_s": level.rates["input_tokens"],
        "total_tokens_per_s": level.rates["total_tokens"],
        "decode_tps_p50": level.speed["p50"] if level.speed else None,
    }
    for metric in metrics.METRICS.values():
        if metric.of in metrics.COLUMNS or metric.of == sweep.latency.of:
            found |= _bounds(level, metric)
    for name, spread in (
        ("latency", level.spread(lambda one: one.of(sweep.latency))),
        ("throughput", level.spread(lambda one: one.rates[sweep.throughput])),
    ):
        low, high = spread or (None, None)
        found |= {f"{name}_lowest_run": low, f"{name}_highest_run": high}
    goodput = level.goodput or {}
    found |= {
        "goals_kept": level.attained,
        "goodput_per_s": goodput.get("per_s"),
        "goodput_share": goodput.get("share"),
    }
    found |= {name: (level.energy or {}).get(name) for name in _ENERGY}
    return found | {
        "verdict": level.verdict,
        "client_was_the_limit": level.client_was_the_limit,
        "counted": level.trusted(sweep.trust),
        "front": index in curve.front,
        "knee": index == curve.knee.index,
        "best": index == curve.best,
    }


def _bounds(level: Level, metric: metrics.Metric) -> dict[str, float | bool | None]:
    """With its lower bound, and whether it rests on too few requests."""
    found: dict[str, float | bool | None] = {f"{metric.name}_ms": level.of(metric)}
    if metric.of == _BOUNDED and metric.kind == metrics.QUANTILE:
        found[f"{metric.name}_low_ms"] = level.low(metric)
    if metric.statistic in _DEMANDING:
        found[f"{metric.name}_unsure"] = level.unsure(metric) if level.of(metric) is not None else None
    return found


def _plain_value(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return guard(value) if isinstance(value, str) else value
