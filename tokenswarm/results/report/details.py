"""The report's appendix: what was run, and how to read it."""

from __future__ import annotations

from tokenswarm.results import wording
from tokenswarm.results.page import escape, facts, section
from tokenswarm.results.report import definitions
from tokenswarm.results.report.material import Material
from tokenswarm.results.wording import count


def details(material: Material) -> str:
    run, say = material.summary["run"], material.say
    target, load = run["target"], run["load"]
    versions = ", ".join(f"{name} {version}" for name, version in run["suite"].items())
    classes = ", ".join(
        say("{name} (thinks)", name=c["name"]) if c["think_time"] else c["name"] for c in run["user_classes"]
    )
    options = " ".join(
        f"<code>{escape(f'{name}={value}')}</code>" for name, value in run["options"].items() if value not in (None, "")
    )
    ended = wording.instant(run["end"])
    pairs = [
        (say("Run"), escape(run["run_id"])),
        (say("Target"), escape(target["host"] or "")),
        (say("Models"), escape(", ".join(map(str, run["models"])))),
        (say("Protocol"), escape(", ".join(map(str, run["protocols"])))),
        (say("Transport"), escape(target["transport"] or "")),
        (say("Arrivals"), escape(say(load["arrivals"]))),
        (say("Users asked"), count(load["users"]) if load["users"] is not None else ""),
        (say("User classes"), escape(classes)),
        (say("Started"), escape(wording.instant(run["start"]))),
        (say("Ended"), escape(ended if run["ended"] else say("{time}, not properly", time=ended))),
        (say("Settling time"), escape(say.again(str(material.phases.settling)))),
        (say("Seed"), "" if run["seed"] is None else escape(run["seed"])),
        (say("Host"), escape(", ".join(f"{say(name)} {value}" for name, value in run["host"].items()))),
        (say("Versions"), escape(versions)),
        (say("Command"), f"<code>{escape(' '.join(run['command']))}</code>" if run["command"] else ""),
        (say("Options"), options),
    ]
    return section(say("What was run"), facts(pairs))


def reading(material: Material) -> str:
    return section(material.say("How to read it"), definitions.listed(material.say))
