"""How many tokens went in and came out, by whose count; against what was asked, and what prompts had in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokenswarm.results import distribution
from tokenswarm.results.cohort import Cohort, Rows, among, ended_as, tally
from tokenswarm.results.flow import column
from tokenswarm.results.read import Run


def figures(run: Run, cohort: Rows) -> dict[str, Any]:
    """Of the successful: whose count they are, their distributions, what was asked and what came, what was cached."""
    ok = among(cohort, ended_as(cohort, "ok"))
    sources = {name: count for name, count in tally(ok["token_source"]).items() if name}
    both = ok.among((ok["asked_output_tokens"].notna() & ok["output_tokens"].notna()).to_numpy())
    told = ok.among((ok["cached_tokens"].notna() & ok["input_tokens"].notna()).to_numpy())
    cached, into = told["cached_tokens"].sum(min_count=1), told["input_tokens"].sum()
    asked = None
    if len(both):
        asked = {
            "rows": len(both),
            "asked_mean": float(both["asked_output_tokens"].mean()),
            "actual_mean": float(both["output_tokens"].mean()),
            "actual_share": float(both["output_tokens"].sum() / max(1.0, both["asked_output_tokens"].sum())),
        }
    return {
        "sources": sources,
        "estimated": "chunks" in sources,
        "output": distribution.of(column(ok, "output_tokens")),
        "input": distribution.of(column(ok, "input_tokens")),
        "characters": distribution.of(column(ok, "output_chars")),
        "cached_share": float(cached / into) if not np.isnan(cached) and into else None,
        "asked": asked,
        "prompts": _prompts(run, ok),
        "prefixes": _prefixes(ok),
    }


def _prompts(run: Run, ok: Cohort) -> dict[str, Any] | None:
    """The lengths that prompts were meant to have, against what the server counted; None where none was meant."""
    meant = ok.among(ok["asked_input_tokens"].notna().to_numpy())
    if not len(meant):
        return None
    everybody = run.info.options.get("tokenizer")
    own = {user.name: user.options.get("tokenizer", everybody) for user in run.info.user_classes}
    actual = meant["input_tokens"].mean()
    return {
        "rows": len(meant),
        "asked_mean": float(meant["asked_input_tokens"].mean()),
        "actual_mean": None if np.isnan(actual) else float(actual),
        "estimated": not all(own.get(name, everybody) for name in meant["user_class"].unique()),
    }


def _prefixes(ok: Cohort) -> dict[str, Any] | None:
    """What prompts had in common on purpose, as a share of their tokens; None where nobody said."""
    said = ok.among(ok["prefix_tokens"].notna().to_numpy())
    tokens = said["input_tokens"].fillna(said["asked_input_tokens"])
    said, tokens = said.among(tokens.notna().to_numpy()), tokens.dropna()
    if not len(said) or not tokens.sum():
        return None
    told = said["cached_tokens"].notna()
    return {
        "rows": len(said),
        "shared_share": float(said["prefix_tokens"].sum() / tokens.sum()),
        "cached_share": float(said["cached_tokens"].sum() / tokens[told].sum()) if told.any() else None,
    }
