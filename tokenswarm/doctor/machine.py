"""The machine that makes the load: is there enough of what a run needs? Reads only; changes no setting."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from tokenswarm.doctor.finding import Finding, fail, ok, warn

OLDEST_PYTHON: Final = (3, 11)
SPARE_DESCRIPTORS: Final = 100
"""Files, pipes and the web page's sockets: what a run holds open beside one connection a user."""
LOCUST_DESCRIPTORS: Final = 10_000
"""To this Locust raises the soft limit at its start, if the hard limit lets it; if not, it leaves it as it is."""

_FEW_USERS: Final = 1000
_FEW_PORTS: Final = 10_000
_SMALL_BACKLOG: Final = 1024
_BUSY: Final = 0.5
_REQUIREMENT: Final = re.compile(r"([\w.-]+)\s*(?:(==|>=)\s*([\d.]+))?")


def python() -> Finding:
    """The interpreter."""
    text = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < OLDEST_PYTHON:
        return fail("python", f"{text}: too old; use Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return ok("python", text)


def libraries(distribution: str = "tokenswarm") -> Finding:
    """Whether what our package asks for is installed, in a version that it asks for."""
    try:
        asked = requires(distribution) or []
    except PackageNotFoundError:
        return warn("libraries", f"{distribution} itself is not installed: run pip install . where its source lies")
    found, problems = [], []
    for requirement in asked:
        match = _REQUIREMENT.match(requirement)
        if match is None or "extra ==" in requirement:
            continue
        name, comparison, wanted = match.groups()
        try:
            installed = version(name)
        except PackageNotFoundError:
            if ";" not in requirement:  # what is asked for on some systems only, we can do without
                problems.append(f"{name} is missing")
            continue
        found.append(f"{name} {installed}")
        if not _fits(installed, comparison, wanted):
            problems.append(f"{name} is {installed} but must be {comparison}{wanted}")
    if problems:
        return fail("libraries", f"{', '.join(problems)}: run pip install --upgrade {distribution}")
    return ok("libraries", ", ".join(found))


def _fits(installed: str, comparison: str | None, wanted: str) -> bool:
    if comparison is None:
        return True
    if comparison == "==":
        return installed == wanted
    return _numbers(installed) >= _numbers(wanted)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def open_files(users: int | None) -> Finding:
    """How many users this process's limit of open files allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_open_files(_number(soft), _number(hard), users)


def judge_open_files(soft: float, hard: float, users: int | None) -> Finding:
    """The limits are numbers of descriptors, infinite where there is none."""
    usable = LOCUST_DESCRIPTORS if soft < LOCUST_DESCRIPTORS <= hard else soft
    room = max(usable - SPARE_DESCRIPTORS, 0)
    raised = "" if usable == soft else f", raised to {_limit(usable)} by Locust"
    text = f"limit {_limit(soft)} (hard {_limit(hard)}){raised}: room for {_limit(room)} users"
    need = max(users or 0, _FEW_USERS) + SPARE_DESCRIPTORS
    more = f"ulimit -n {need} in the shell"
    if need > hard:
        more = f"raise the hard limit to {need} (nofile in /etc/security/limits.conf, or --ulimit of the container)"
    if users is not None and users > room:
        return fail("open files", f"{text}, but --users is {users}: {more}")
    if users is None and room < _FEW_USERS:
        return warn("open files", f"{text}; for more: {more}")
    return ok("open files", text)


def _limit(number: float) -> str:
    return "unlimited" if number == float("inf") else f"{number:.0f}"


def _number(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def processors() -> list[Finding]:
    """Cores that we may use, how busy they are, and what a container's limit leaves of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    findings = []
    if cores == 1:
        text = "only one: whatever else runs here, a model server above all, delays the load generator"
        findings.append(warn("cores", text))
    else:
        findings.append(ok("cores", f"{cores}; one run uses one of them"))
    findings.append(judge_load(os.getloadavg()[0], cores))
    limit, throttled = cgroup_cpu()
    if limit is not None and limit < cores:
        text = f"limited to {limit:g} CPUs by its cgroup, held back {throttled} times so far"
        advice = "a process that is held back measures its own pauses; give the container whole cores"
        findings.append(warn("cgroup", f"{text}: {advice}") if limit < 1 or throttled else ok("cgroup", text))
    else:
        findings.append(ok("cgroup", "no CPU limit"))
    return findings


def judge_load(load: float, cores: int) -> Finding:
    """`load` is the average of the last minute."""
    text = f"{load:.2f} on average in the last minute, on {cores} cores"
    if load >= _BUSY * cores:
        return warn("load", f"{text}: other programs are busy here; end them, or measure from another machine")
    return ok("load", text)


def cgroup_cpu(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> tuple[float | None, int]:
    """(CPUs allowed by the tightest cgroup around us, or None; times we were held back), of cgroup v2 and v1."""
    limits, throttled = [], 0
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        here = top / path.lstrip("/")
        for folder in (here, *here.parents):
            limits += _quota(folder)
            stat = re.search(r"^nr_throttled (\d+)", _text(folder / "cpu.stat"), re.MULTILINE)
            throttled = max(throttled, int(stat[1]) if stat else 0)
            if folder == top:
                break
    return min(limits, default=None), throttled


def _quota(folder: Path) -> list[float]:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    limited = quota.isdigit() and period.isdigit()  # "max" in v2 and -1 in v1 are no limit
    return [int(quota) / int(period)] if limited else []


def network(users: int | None) -> list[Finding]:
    """Ports to connect from, and the line in front of a server on this machine. Linux only."""
    findings = []
    ports = _text(Path("/proc/sys/net/ipv4/ip_local_port_range")).split()
    if len(ports) == 2:
        findings.append(judge_ports(int(ports[0]), int(ports[1]), users))
    backlog = _text(Path("/proc/sys/net/core/somaxconn"))
    if backlog.isdigit():
        text = f"somaxconn {backlog}"
        advice = "a server here drops connections when more come at once: sysctl -w net.core.somaxconn=4096"
        small = int(backlog) < _SMALL_BACKLOG
        findings.append(warn("backlog", f"{text}: {advice}") if small else ok("backlog", text))
    return findings


def judge_ports(low: int, high: int, users: int | None) -> Finding:
    """Ephemeral ports: each connection to one server address takes one, and holds it for a minute after its end."""
    count = high - low + 1
    text = f"{low} to {high}: {count} connections to one server address"
    advice = "sysctl -w net.ipv4.ip_local_port_range='10000 65000'"
    if users is not None and users > count:
        return fail("ports", f"{text}, but --users is {users}: {advice}")
    if count < _FEW_PORTS:
        return warn("ports", f"{text}, few if connections are not kept alive: {advice}")
    return ok("ports", text)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # another system, another kernel: then there is nothing to say about it
        return ""
