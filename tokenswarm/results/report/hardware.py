"""The report's sections on machines: what they did under the load, over time and in figures, and their energy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tokenswarm.results import hardware as samples
from tokenswarm.results.charts import together as charts
from tokenswarm.results.page import escape, facts, figure, section, table
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count, number, plain

STATISTICS: Final = ("mean", "min", "p50", "p95", "max", "std")


def together(material: Material) -> str:
    """Load, latency, server and hardware on one axis; nothing where neither server nor hardware was asked."""
    say = material.say
    chart = charts.chart(material.run, material.phases, clients(material), say)
    note = say("Point at a moment: all rows tell what they were then. A line has a gap where nothing was told.")
    return section(say("On one time axis"), figure("chart-together", chart, note, wide=True))


def hardware(material: Material) -> str:
    """Figures of each device and of all GPUs together; nothing where nobody was asked."""
    say, found = material.say, material.summary["hardware"]
    known = samples.names(material.run.info.scraped)
    told = [(_all(one, material), one) for one in material.summary["gpus"]]
    told += [(_device(one, known, clients(material), material), one) for one in found]
    told.sort(
        key=lambda named: list(samples.SHOWN).index(named[1]["metric"])
    )  # devices side by side, all of them first
    rows = [
        [
            escape(plain(name, 60)),
            f"{escape(say(one['label']))}, {escape(say(one['unit']))}",
            *(number(one[statistic]) for statistic in STATISTICS),
            count(one["samples"]),
        ]
        for name, one in told
    ]
    heads = ["", "", say("mean"), say("min"), "p50", "p95", say("max"), say("std"), say("samples")]
    each = _facts(material.summary["per_gpu"], material)
    note = say("Samples inside the window. The highest is the highest reading, also between two samples.")
    return section(say("Hardware"), table(heads, rows) if rows else "", facts(each), note=note)


def clients(material: Material) -> list[str]:
    """Hosts that made the load."""
    info = material.run.info
    names = [worker.hostname for worker in info.workers] + [info.host.get("hostname")]
    return [str(name) for name in names if name]


def _all(one: dict[str, Any], material: Material) -> str:
    say = material.say
    return say("All {n} GPUs, sum", n=one["of"]) if one["as"] == "sum" else say("All {n} GPUs, mean", n=one["of"])


def _device(one: dict[str, Any], known: dict[tuple[str, str], str], made_load: list[str], material: Material) -> str:
    host, device = one["host"], one["device"]
    if (host, device) in known:
        return known[host, device]
    name = host if device == "host" else f"{host}/{device}"
    return material.say("{host} (client)", host=name) if device == "host" and host in made_load else name


def _facts(found: dict[str, Any] | None, material: Material) -> Iterator[tuple[str, str]]:
    if found is None:
        return
    say = material.say
    for name, label in (
        ("output_tokens_per_s", say("Output tokens/s, each GPU")),
        ("total_tokens_per_s", say("All tokens/s, each GPU")),
        ("requests_per_s", say("Requests/s, each GPU")),
    ):
        if found[name] is not None:
            yield label, say("{rate}, of {n} GPUs", rate=number(found[name]), n=count(found["gpus"]))


def energy(material: Material) -> str:
    """Joules and tokens; what is unknown says why. Nothing where no GPU was sampled."""
    say, found = material.say, material.summary["energy"]
    if found is None:
        return ""
    columns = found["windows"] if len(found["windows"]) == 1 else [*found["windows"], found["all"]]
    labels = {
        "joules": say("Energy, J"),
        "watts": say("Power on average, W"),
        "joules_per_output_token": say("J per output token"),
        "joules_per_total_token": say("J per token, input and output"),
        "output_tokens_per_joule": say("Output tokens per J"),
        "net_joules_per_output_token": say("J per output token, net of idle"),
        "net_output_tokens_per_joule": say("Output tokens per J, net of idle"),
    }
    rows = [
        [label, *(say("unknown") if one[name] is None else _precise(one[name]) for one in columns)]
        for name, label in labels.items()
        if name == "joules" or any(one[name] is not None for one in columns)
    ]
    heads = ["", *(_head(one, one is found["all"], material) for one in columns)]
    notes = "".join(f"<li>{escape(say.again(note))}</li>" for note in found["notes"])
    about = say("GPU boards only, all that were sampled, idle ones too: no hosts, no switches, no cooling.")
    return section(
        say("Energy"),
        table(heads, rows),
        facts(_methods(found, material)),
        f"<ul>{notes}</ul>" if notes else "",
        note=about,
    )


def _methods(found: dict[str, Any], material: Material) -> Iterator[tuple[str, str]]:
    say = material.say
    methods = sorted({gpu["method"] for gpu in found["gpus"] if gpu["method"]})
    names = ", ".join(plain(gpu["name"], 40) for gpu in found["gpus"][:16])
    yield say("GPUs"), escape(f"{len(found['gpus'])}: {names}")
    if methods:
        yield say("Taken from"), ", ".join(f"<code>{escape(method)}</code>" for method in methods)
    if found["idle_watts"] is not None:
        idle = number(found["idle_watts"])
        measured = say("{watts} W together, measured before the load", watts=idle)
        yield say("Idle"), measured if found["idle_from"] == "measured" else f"{idle} W"


def _head(one: dict[str, Any], all_of_it: bool, material: Material) -> str:
    if all_of_it:
        return material.say("all windows")
    users = "" if one["users"] is None else material.say(", {n} users", n=count(one["users"]))
    return f"{number(one['seconds'])} s{users}"


def _precise(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
