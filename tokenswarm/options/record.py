"""Options on what is written down, and who is asked beside the load."""

from __future__ import annotations

from typing import Final

from tokenswarm.options.entry import Option, items, on, one_of, text

OPTIONS: Final = (
    Option("run_dir", "DIR", "directory to write this run to; left out: runs/<time>-<label>", text),
    Option("label", "TEXT", "name of the run, used in its directory's name and its report", text),
    Option("save_responses", "", "keep prompts and replies in responses.jsonl", on, default=False),
    Option(
        "hardware",
        "URL,…|local",
        "exporters to ask what their machines do; local: the machine Locust runs on",
        items,
    ),
    Option(
        "server_metrics",
        "URL,…|target",
        "the model server's own metrics pages; target: /metrics of each --host",
        items,
    ),
    Option(
        "lang", "en|zh", "language of the report and of the table at the end: English or Chinese", one_of("en", "zh")
    ),
)
