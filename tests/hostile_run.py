"""A run directory in which every text that a server, a model or a user could have chosen is hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import run_directory_maker as maker

FLAG = "hostileRan"
"""What any of the scripts below sets on the page's window, should it ever run."""
RUNS = f"window.{FLAG}=1"
SCRIPT = f"</script><script>{RUNS}</script>"
IMAGE = f"<img src=x onerror={RUNS}>"
LINK = f"<a href='javascript:{RUNS}'>free</a> <b>bold</b><br>"
SHORT = ("<b>bold</b>", "<a href='//x'>y</a>")
"""What plotly takes for markup, short enough to be on a chart as a whole."""
TITLE = f"</title></style>{SCRIPT}{IMAGE}<svg onload={RUNS}>"
FORMULA = "=HYPERLINK(0)"
LEFTWARD = "\u202egnorw\u202c \u0627\u0644\u0646\u0645\u0648\u0630\u062c"
EMOJI = "👩‍🚀🏳️‍🌈 服务器忙"
TERMINAL = "\x1b[31mred\x1b]0;title\x07\x00\u2028\u0085"
LONG = "A" * 1_000_000
LONE_SURROGATE = b"\xed\xa0\x80"

MODEL, CLASS, NAME = f"{IMAGE}m", f"{LINK}Reader", f"/{LINK}{EMOJI}"
TEXTS = (SCRIPT + IMAGE, LINK, FORMULA + IMAGE, LEFTWARD, EMOJI, TERMINAL + SCRIPT, LONG, f"{{{{7*7}}}} ${{{RUNS}}} %s")


def write(directory: Path, ttft: float = 0.1) -> Path:
    """A minute of four users of two classes on two workers, with errors, hardware and a server's own figures."""

    def change(record: maker.Record, index: int) -> None:
        record.model, record.name = MODEL, (NAME, f"{SCRIPT}b")[index % 2]
        record.user_class = (CLASS, IMAGE)[index % 2]
        record.remote_addr = f"{LINK}:80"
        record.finish_reason, record.conversation = SCRIPT, LINK

    records = maker.closed_loop(users=4, seconds=60, ttfts=(ttft, ttft * 1.2, ttft * 2), change=change)
    for index, text in enumerate(TEXTS * 3):
        bad = maker.failed(index, 20 + index, 1.0, ("http_5xx", *SHORT, IMAGE)[index % 4], text)
        bad.user_class, bad.name, bad.worker = CLASS, NAME, index % 2
        records.append(bad)
    text = SHORT[0] + directory.name + SCRIPT + LINK + EMOJI + TERMINAL + LEFTWARD
    target = {"host": text, "simulator": True, "protocol": text, "model": text, "transport": text}
    classes = [{"name": CLASS, "think_time": False, "options": {text: text}}, {"name": IMAGE}]
    workers = [
        {"index": index, "hostname": text, "pid": 7, "clock": text, "status": text, "clock_offset_ms": 0.1}
        for index in range(2)
    ]
    gpu = {"device": IMAGE, "kind": "gpu", "gpu": "0"}
    maker.write(
        directory, records, maker.boundaries(4, 2, 60, 61), 4, run_id=SHORT[0] + directory.name, label=text + TITLE,
        target=target, problems=[text], command=[text], suite={text: text}, host={text: text}, ended_by=text,
        options={text: text, "slo": "ttft_p95<500ms", "goodput": "ttft<150ms"}, user_classes=classes, workers=workers,
        scraped=[{"kind": text, "url": text, "host": SHORT[0], "devices": [gpu]}],
        user_exceptions=[{"count": 3, "message": text}],
    )  # fmt: skip
    rows = (directory / "requests.csv").read_bytes()
    (directory / "requests.csv").write_bytes(rows.replace(EMOJI.encode(), EMOJI.encode() + LONE_SURROGATE))
    _beside(directory)
    return directory


def _beside(directory: Path) -> None:
    """hardware.csv, server_metrics.csv, responses.jsonl with a reply of a megabyte, and interval lines."""

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""').replace("\x00", "") + '"'

    lines = ["time,host,device,metric,value,mean,max"]
    for second in range(61):
        for device in (IMAGE, *SHORT):
            for metric, value in (("utilization_ratio", 0.5), ("power_watts", 300), ("memory_used_bytes", 2**33)):
                who = f"{quoted(SHORT[0])},{quoted(device)},{metric}"
                lines.append(f"{maker.T0 + second:.6f},{who},{value},{value},{value}")
    (directory / "hardware.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["time,source,metric,labels,value"]
    for second in range(61):
        lines.append(f"{maker.T0 + second:.6f},{quoted('http://' + LINK)},up,,1")
        for metric in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
            labels = quoted(f'engine="{IMAGE}"')
            lines.append(f"{maker.T0 + second:.6f},{quoted('http://' + LINK)},{metric},{labels},{0.1 + second % 3}")
    (directory / "server_metrics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    reply = {"id": "r0", "prompt": SCRIPT, "text": SCRIPT + IMAGE + LONG}
    (directory / "responses.jsonl").write_text(json.dumps(reply) + "\n", encoding="utf-8")
    path = directory / "intervals.jsonl"
    changed: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in changed:
        line["errors"] = {LINK: 1}
        line["tcp_trouble"] = {SCRIPT: 2}
    path.write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")
