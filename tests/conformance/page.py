"""The tables of docs/servers.md: `write` keeps what the tests saw of a server in seen.json, and makes them anew."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from locust_process import ROOT

Seen = dict[str, str]
"""What was seen, by the name of the column."""

SEEN = Path(__file__).with_name("seen.json")
PAGE = ROOT / "docs" / "servers.md"

CLAIMS = {
    "streams": "streams",
    "whole": "not streamed",
    "cancelled": "after a cancelled reply",
    "overloaded": "more users than it can serve",
}
REFUSALS = {"unknown model": "unknown model", "bad parameter": "bad parameter", "wrong key": "wrong key"}
VLLM_TIMES = (
    "requests",
    "TTFT mean",
    "TTFT p50",
    "TTFT p95",
    "chunks / tokens",
    "ITL mean",
    "first to last token, mean",
    "to the last token, mean",
)
LLAMA_TIMES = ("requests", "ITL mean", "ITL p50", "ITL p99")
WIRE = {"first": "first chunk has", "chunks": "chunks with text", "usage": "usage comes", "end": "end mark"}


def write(server: str, version: str, module: str, noted: Seen) -> None:
    """Put what a module of tests saw of a server in the place of what it saw before, and the tables into the page."""
    seen = read()
    entry = seen.setdefault(server, {})
    entry["version"] = version
    entry[module] = noted
    SEEN.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), seen), encoding="utf-8")


def read() -> dict[str, Any]:
    """By server: `version`, and by module of tests what it saw."""
    found: dict[str, Any] = json.loads(SEEN.read_text(encoding="utf-8")) if SEEN.exists() else {}
    return found


def filled(page: str, seen: dict[str, Any]) -> str:
    """The page with its tables as they should be; each stands between `<!-- NAME -->` and `<!-- end -->`."""
    tables = {
        "claims": _table(seen, "test_servers", CLAIMS),
        "refusals": _table(seen, "test_servers", REFUSALS),
        "wire": _table(seen, "test_servers", WIRE),
        "vllm": _runs(seen["vLLM"].get("test_server_times", {}), VLLM_TIMES) if "vLLM" in seen else "",
        "llama": _runs(seen["llama.cpp"].get("test_server_times", {}), LLAMA_TIMES) if "llama.cpp" in seen else "",
        "protocols": _table(seen, "test_servers", {"speaks": "answers as it should over"}),
    }
    for name, table in tables.items():
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: m[1] + t + m[2], page, flags=re.DOTALL
        )
    return page


def _runs(noted: dict[str, str], columns: tuple[str, ...]) -> str:
    """What was noted of each run is its line."""
    heading = f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}\n"
    return heading + "".join(f"| {name} | {line} |\n" for name, line in noted.items())


def _table(seen: dict[str, Any], module: str, columns: dict[str, str]) -> str:
    lines = [["server", *columns.values()], ["---"] * (len(columns) + 1)]
    for server in sorted(seen, key=str.lower):
        noted = seen[server].get(module, {})
        lines.append([f"{server} {seen[server]['version']}", *(noted.get(name, "") for name in columns)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
