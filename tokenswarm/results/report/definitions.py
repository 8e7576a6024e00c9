"""What each figure of the report means, one click away: its definition, and links to it from wherever it is named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tokenswarm.results.language import Language
from tokenswarm.results.page import escape
from tokenswarm.results.wording import IN_FULL


@dataclass(frozen=True)
class Definition:
    """`names` are what the report calls it, the first in its heading. `of`: which requests count. `others`: what other
    tools call it, or call the same and mean something else."""

    anchor: str
    names: tuple[str, ...]
    text: str
    formula: str = ""
    of: str = ""
    others: str = ""


_DUE: Final = "Requests due in the steady window that succeeded, whenever they ended."

DEFINITIONS: Final = (
    Definition(
        "ttft",
        ("TTFT",),
        "Time to first token: from the start of the request to the arrival of the first chunk with output, be it text, "
        "reasoning or a tool call. An empty chunk, or one with a role only, is no token. Two figures (71.5–71.7) are "
        "bounds of one truth: the client was busy, and chunks were read together.",
        formula="first token − start",
        of="Requests due in the steady window whose first token came, whatever became of them.",
        others="vLLM, SGLang, AIPerf, GuideLLM: TTFT",
    ),
    Definition(
        "ttft-sent",
        ("TTFT from sent",),
        "The same without connecting and sending: the server's own share. Claims about the server rest on this one.",
        formula="first token − sent",
        of="As TTFT.",
    ),
    Definition(
        "ttft-due",
        ("TTFT from due",),
        "The same from when the load plan wanted the request, so that a client that is late does not hide it: what a "
        "user of an open loop waits.",
        formula="first token − intended",
        of="As TTFT.",
        others="TTFT corrected for coordinated omission",
    ),
    Definition(
        "ttfo",
        ("First answer",),
        "Time to the first visible text: reasoning does not count.",
        formula="first visible text − start",
        of="As TTFT.",
        others="AIPerf: TTFO",
    ),
    Definition(
        "tpot",
        ("TPOT",),
        "Time per output token after the first chunk, the mean of one request. Tokens are the server's count.",
        formula="(last token − first token) / (output tokens − tokens of the first chunk)",
        of="Requests due in the steady window that succeeded, with two output chunks or more.",
        others="vLLM: TPOT; AIPerf, GuideLLM: ITL; GuideLLM's TPOT is end to end / tokens",
    ),
    Definition(
        "itl",
        ("ITL",),
        "Inter-token latency: gaps between arrivals of successive output chunks, of all requests together. A gap whose "
        "ends are not both certain is unknown and left out, not 0.",
        formula="arrival of a chunk − arrival of the one before",
        of="All gaps inside the steady window.",
        others="vLLM: ITL; AIPerf: ICL",
    ),
    Definition(
        "e2e",
        ("End to end", "e2e"),
        "The whole request. The end is the protocol's end mark, or the end of the body.",
        formula="end − start",
        of=_DUE,
        others="vLLM: E2EL, and AIPerf: request latency, both to the last token",
    ),
    Definition(
        "late",
        ("Client late", "client late"),
        "How much later than due a request started: the client's delay, or no place under --max-in-flight.",
        formula="start − intended",
        of="Requests due in the steady window that were started.",
    ),
    Definition(
        "sent",
        ("Start → sent",),
        "Waiting for a connection, connecting and sending: the part of TTFT that is not the server's.",
        formula="sent − start",
        of="Requests due in the steady window that were sent.",
    ),
    Definition(
        "requests-per-s",
        ("Requests, ok", "Requests that succeeded", "requests/s"),
        "Successful requests, counted when they ended.",
        formula="requests that ended in the window / its seconds",
        others="request throughput",
    ),
    Definition(
        "tokens-per-s",
        (
            "Output tokens (estimate)",
            "Output tokens",
            "Input and output tokens",
            "Input tokens",
            "tokens/s",
            "output tokens",
        ),
        "Output tokens count in the second in which their chunk arrived, input tokens at the first token. The server's "
        "usage tells how many; else a tokenizer; else chunks are counted, and that is called an estimate.",
        formula="tokens that arrived in the window / its seconds",
        of="All requests, also those that failed later.",
        others="output token throughput, total token throughput",
    ),
    Definition(
        "chunks",
        ("Output chunks", "Output characters"),
        "A chunk is an event that carries output, and may hold several tokens. Characters are Unicode code points.",
    ),
    Definition(
        "in-flight",
        ("In flight", "in flight"),
        "Requests between sent and end, on average over the window.",
        formula="sum of their time in the window / its seconds",
        others="concurrency",
    ),
    Definition(
        "stall",
        ("Stalls", "stall", "longest gap"),
        "A stall is a gap between two output chunks of one reply that is longer than a second, or than ten times the "
        "median gap where that is more.",
        of="Each request of the whole run once, by its longest gap.",
        others="ITL max",
    ),
    Definition(
        "server",
        ("Requests running", "Requests waiting", "waiting at the server"),
        "As the server's own page counts them: requests that it works at, and requests in the queue before that. A "
        "queue that grows means that more is asked than it can serve.",
        of="The pages that were read inside the steady window.",
        others="vLLM: num_requests_running, num_requests_waiting",
    ),
    Definition(
        "kv-cache",
        ("KV cache in use", "Preemptions"),
        "Share of the server's KV cache that is taken; of several engines the fullest counts. Near 100 % requests "
        "wait, or are preempted: stopped, and computed again later.",
        of="The pages that were read inside the steady window.",
        others="vLLM: kv_cache_usage_perc; SGLang: token_usage",
    ),
    Definition(
        "prefix-cache",
        ("Prompt tokens out of the prefix cache", "Cached input", "cached share of the input"),
        "Input tokens that the server had computed for an earlier prompt with the same beginning, and took out of its "
        "cache. Its page and its usage each tell their own figure.",
        formula="cached input tokens / input tokens",
        others="prefix cache hit rate",
    ),
    Definition(
        "energy",
        (
            "Output tokens per J, net of idle",
            "J per output token, net of idle",
            "Output tokens per J",
            "J per output token",
            "J per token, input and output",
            "Energy, J",
        ),
        "What all GPU boards that were sampled used, idle ones too, by their energy counters; where these are missing, "
        "by the integral of their power. No hosts, no switches, no cooling. Net of idle: less what they use without "
        "load.",
        formula="joules in the window / tokens in the window",
    ),
    Definition(
        "client-lag",
        ("Client lag", "client lag"),
        "How long after its arrival a chunk was handled by the client, at worst. With kernel stamps it is not in the "
        "latencies.",
        formula="handled − arrival",
    ),
    Definition(
        "goals",
        ("Goals", "goals"),
        "Limits for the run, as --slo has them, with every request that was due counted: one that failed, ran into a "
        "time limit or was not sent has missed them all.",
    ),
    Definition(
        "goodput",
        ("Goodput", "goodput"),
        "Requests that kept to all limits of --goodput, a second, and their share of all that were due.",
        formula="good requests / seconds of the window",
        of="Requests due in the steady window; those whose users left before they were late are out.",
        others="SLO attainment: the share",
    ),
    Definition(
        "window",
        ("Steady window",),
        "From the target load plus a settling time to the next change of load or the stop. A request counts if it was "
        "due in the window, however late it ended: choosing by the end would favour short answers.",
    ),
    Definition(
        "percentiles",
        ("Percentiles",),
        "Exact, of all rows, linear between ranks (type 7); of ITL from merged histograms, within 0.5 %. Marked ~ are "
        "those with too few requests behind them: p90 wants 36, p95 72, p99 368, p99.9 3,688.",
    ),
    Definition(
        "verdict",
        ("Verdict",),
        "Whether the measurement may be believed: valid, degraded or invalid. It does not judge the server: a slow "
        "server that is measured well is a valid run.",
    ),
)


def listed(say: Language) -> str:
    """All of them as a list of definitions."""
    return f'<dl class="definitions">{"".join(_entry(definition, say) for definition in DEFINITIONS)}</dl>'


def _entry(definition: Definition, say: Language) -> str:
    more = [
        (say("Counted"), say(definition.of)),
        (say("Elsewhere"), say(definition.others)),
    ]
    lines = [f"<p>{escape(say(definition.text))}</p>"]
    if definition.formula:
        lines.insert(0, f'<p class="formula">{escape(say(definition.formula))}</p>')
    lines += [f'<p class="more"><b>{escape(name)}</b> {escape(text)}</p>' for name, text in more if text]
    name = escape(say(definition.names[0]))
    back = f'<a class="back" href="#percentiles" aria-label="{escape(say("back to the figures"))}">↩</a>'
    full = say(IN_FULL.get(definition.names[0], ""))
    small = f"<small>{escape(full)}</small>" if full else ""
    return f'<div id="def-{definition.anchor}"><dt><dfn>{name}</dfn> {back}{small}</dt><dd>{"".join(lines)}</dd></div>'


# Where a figure is named: right after the tag of a table's head, a caption, a card or a list's term.
_NAMED: Final = re.compile(r'(<(?:th|figcaption|dt)\b[^>]*>|<div class="name">)([^<]+)')


def linked(markup: str, say: Language) -> str:
    """The same, with a link to the definition from each head, caption or card that names a figure."""
    anchors = {escape(say(name)): each.anchor for each in DEFINITIONS for name in each.names}
    longest_first = sorted(anchors, key=len, reverse=True)
    name = re.compile(r"(?<![A-Za-z])(" + "|".join(map(re.escape, longest_first)) + r")(?![A-Za-z])")

    def link(found: re.Match[str]) -> str:
        return f'<a class="term" href="#def-{anchors[found[1]]}">{found[1]}</a>'

    return _NAMED.sub(lambda found: found[1] + name.sub(link, found[2], count=1), markup)
