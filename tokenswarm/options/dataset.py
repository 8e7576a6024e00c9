"""Options on the file that prompts are taken from, and the order in which they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tokenswarm.options.entry import Option, file, on, one_of, text
from tokenswarm.options.values import Options
from tokenswarm.workload.order import ORDERS, SAMPLED

_ERRORS = ("skip", "fail")
_REPLIES = ("server", "file")

OPTIONS: Final = (
    Option("dataset", "FILE", "prompts and conversations to send, one a line; left out: the bundled questions", file),
    Option(
        "dataset_column",
        "NAME",
        "the column (CSV, TSV) or field (JSON) that holds the prompt; left out: the first of the usual names",
        text,
    ),
    Option(
        "dataset_order",
        "|".join(ORDERS),
        "as in the file, each round in another order, or drawn anew each time, by --seed; left out: sequential, but "
        "bundled questions are shuffled",
        one_of(*ORDERS),
    ),
    Option("dataset_once", "", "each prompt once over all workers; then the run ends", on, default=False),
    Option(
        "dataset_errors",
        "|".join(_ERRORS),
        "leave bad lines out and say so, or end the run",
        one_of(*_ERRORS),
        default="skip",
    ),
    Option(
        "dataset_replies",
        "|".join(_REPLIES),
        "what a conversation carries along as its answers: the server's own, or the file's",
        one_of(*_REPLIES),
        default="server",
    ),
)


def problems(options: Options) -> Iterator[str]:
    """What contradicts itself."""
    if options.dataset_column is not None and options.dataset is None:
        yield "--dataset-column says where in a --dataset FILE the prompts are: name the file too"
    if options.dataset_once and options.dataset_order == SAMPLED:
        yield f"--dataset-once with --dataset-order {SAMPLED}: what is drawn anew is not asked once; take shuffled"
    if options.dataset_once and options.input_tokens is not None:
        yield "--dataset-once: there is no end to prompts that --input-tokens makes up; end the run by --requests"
