"""The command line of the simulator, parsed once into one typed object."""

from __future__ import annotations

import argparse
import math
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenswarm.errors import OptionError
from tokenswarm.simulator.engine import Latency
from tokenswarm.simulator.faults import KINDS, MEANINGS, FaultRate, parse_rate
from tokenswarm.simulator.plan import Style

DEFAULT_KEY_VARIABLE = "SIMULATOR_API_KEY"

_DESCRIPTION = """\
An LLM server without a model. It speaks the protocols of OpenAI (chat, completions, responses, embeddings), Ollama,
FastChat's worker, DashScope, Anthropic, TGI and ChatGLM, batches continuously as a real server does, and can log when
each token really went to the socket. Nothing it answers means anything."""

_EPILOG = """\
examples:
  tokenswarm simulate                                       a mid-size model on one GPU, on port 8000
  tokenswarm simulate --max-batch 8                         queues form beyond 8 requests at once
  tokenswarm simulate --decode-base 20 --decode-per-seq 0 --jitter 0 --log sends.jsonl
                                                            exactly 50 tokens/s a request, every send logged
  tokenswarm simulate --fault truncate:0.02 --fault stall:0.01

faults (KIND:RATE with --fault, or in a request's body as "simulator": {"fault": KIND, "after": CHUNKS}):
"""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything the simulator was told. `api_key` is read from the environment already."""

    host: str
    port: int
    base_path: str
    model: str
    latency: Latency
    style: Style
    max_batch: int
    max_queue: int | None
    kv_cache_tokens: int
    prefix_cache_tokens: int
    tokens_per_chunk: int
    seed: int
    api_key: str | None
    tls: ssl.SSLContext | None
    log: Path | None
    announce: bool
    exit_with_stdin: bool


def _integer(low: int, high: int = 1 << 53) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            bounds = f"at least {low}" if high == 1 << 53 else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text} is out of range; it must be {bounds}")
        return value

    return parse


def _number(high: float = math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not (0.0 <= value <= high and math.isfinite(value)):
            bounds = "0 or more" if high == math.inf else f"from 0 to {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is out of range; it must be {bounds}")
        return value

    return parse


def _fault(text: str) -> FaultRate:
    try:
        return parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def build_parser() -> argparse.ArgumentParser:
    """The parser, with the help that teaches."""
    width = max(len(kind) for kind in KINDS)
    parser = argparse.ArgumentParser(
        prog="tokenswarm simulate",
        description=_DESCRIPTION,
        epilog=_EPILOG + "\n".join(f"  {kind:{width}}  {MEANINGS[kind]}" for kind in KINDS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_listening(parser.add_argument_group("where it listens"))
    _add_latency(parser.add_argument_group("how fast it is (milliseconds)"))
    _add_replies(parser.add_argument_group("what it answers"))
    return parser


def _add_listening(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)"
    )
    group.add_argument(
        "--port", type=_integer(0, 65535), default=8000, help="0 picks a free one (default: %(default)s)"
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate chain (PEM)")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, if not in the same file")
    keys = group.add_mutually_exclusive_group()
    keys.add_argument(
        "--api-key-env", metavar="NAME", help="demand the API key that this environment variable holds; else answer 401"
    )
    keys.add_argument(
        "--require-key",
        dest="api_key_env",
        action="store_const",
        const=DEFAULT_KEY_VARIABLE,
        help=f"the same as --api-key-env {DEFAULT_KEY_VARIABLE}",
    )
    group.add_argument(
        "--announce",
        action="store_true",
        help="print one line of JSON with url, model and pid on stdout once it listens, for programs that start it",
    )
    group.add_argument(
        "--base-path", default="", metavar="/PATH", help="serve everything under this path, as behind a proxy"
    )
    group.add_argument("--exit-with-stdin", action="store_true", help="exit when stdin is closed, as with its parent")
    group.add_argument(
        "--log", type=Path, metavar="FILE", help="append one line of JSON a request: what was sent, when"
    )


def _add_latency(group: argparse._ArgumentGroup) -> None:
    usual = Latency()
    for option, default, text in (
        ("--prefill-base", usual.prefill_base_ms, "fixed part of the time to the first token"),
        ("--prefill-per-token", usual.prefill_per_token_ms, "per prompt token; prompts are computed one after another"),
        ("--decode-base", usual.decode_base_ms, "fixed part of a decode step"),
        ("--decode-per-seq", usual.decode_per_seq_ms, "per sequence in the batch; 0 makes steps equally long"),
    ):
        group.add_argument(option, type=_number(), default=default, metavar="MS", help=f"{text} (default: %(default)s)")
    group.add_argument(
        "--jitter",
        type=_number(10.0),
        default=usual.jitter,
        metavar="CV",
        help="coefficient of variation of each of these times, lognormal; 0 for none (default: %(default)s)",
    )
    group.add_argument(
        "--max-batch",
        type=_integer(1),
        default=256,
        metavar="N",
        help="requests that run at the same time; the others wait in line (default: %(default)s)",
    )
    group.add_argument(
        "--max-queue", type=_integer(0), metavar="N", help="requests that may wait; more get 429 (default: any number)"
    )
    group.add_argument(
        "--kv-cache-tokens",
        type=_integer(1),
        default=1_000_000,
        metavar="N",
        help="prompt and output tokens of all running requests together (default: %(default)s)",
    )
    group.add_argument(
        "--prefix-cache",
        type=_integer(0),
        default=0,
        metavar="N",
        help="keep N tokens of prompts, so that the same beginnings need no prefill again (default: none)",
    )
    group.add_argument(
        "--seed", type=_integer(0), default=0, help="same seed, same texts, lengths and jitter (default: 0)"
    )


def _add_replies(group: argparse._ArgumentGroup) -> None:
    usual = Style()
    group.add_argument("--model", default="simulator", metavar="NAME", help="its name (default: %(default)s)")
    group.add_argument(
        "--output-tokens",
        type=_integer(1),
        default=usual.output_tokens,
        metavar="N",
        help="mean length at which replies end by themselves, if max_tokens does not cut them (default: %(default)s)",
    )
    group.add_argument(
        "--max-model-len",
        type=_integer(2),
        default=usual.max_model_len,
        metavar="N",
        help="context length: prompt and output together (default: %(default)s)",
    )
    group.add_argument(
        "--tokens-per-chunk",
        type=_integer(1),
        default=1,
        metavar="N",
        help="tokens each step gives each request, as speculative decoding does (default: %(default)s)",
    )
    group.add_argument(
        "--reasoning", type=_integer(0), default=0, metavar="N", help="the first N tokens come as reasoning"
    )
    group.add_argument(
        "--empty-chunks", type=_number(0.95), default=0.0, metavar="RATE", help='share of steps that send content ""'
    )
    group.add_argument("--cut-writes", action="store_true", help="send each chunk in two parts, cut anywhere")
    group.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="KIND:RATE", help="see below; may be repeated"
    )


def parse(argv: list[str] | None = None) -> Options:
    """Read the command line. Raises OptionError for values that do not go together; argparse exits for the others."""
    given = build_parser().parse_args(argv)
    problems = []
    if sum(each.rate for each in given.fault) > 1.0:
        problems.append("--fault: the rates add up to more than 1")
    if given.kv_cache_tokens < given.max_model_len:
        problems.append(f"--kv-cache-tokens {given.kv_cache_tokens}: less than --max-model-len {given.max_model_len}")
    if given.base_path and not re.fullmatch(r"(/[\w.-]+)+", given.base_path):
        problems.append(
            f"--base-path {given.base_path!r}: begin it with a slash and end it without one, as in /simulator"
        )
    if not given.model.strip():
        problems.append("--model: the name is empty")
    api_key = os.environ.get(given.api_key_env) if given.api_key_env else None
    if given.api_key_env and not api_key:
        problems.append(f"--api-key-env: the environment variable {given.api_key_env} is not set, or empty")
    tls = _tls(given.tls_cert, given.tls_key, problems)
    if problems:
        raise OptionError("\n".join(problems))
    return Options(
        host=given.host,
        port=given.port,
        base_path=given.base_path,
        model=given.model,
        latency=Latency(
            given.prefill_base, given.prefill_per_token, given.decode_base, given.decode_per_seq, given.jitter
        ),
        style=Style(
            output_tokens=given.output_tokens,
            reasoning=given.reasoning,
            empty_chunks=given.empty_chunks,
            cut_writes=given.cut_writes,
            max_model_len=given.max_model_len,
            faults=tuple(given.fault),
        ),
        max_batch=given.max_batch,
        max_queue=given.max_queue,
        kv_cache_tokens=given.kv_cache_tokens,
        prefix_cache_tokens=given.prefix_cache,
        tokens_per_chunk=given.tokens_per_chunk,
        seed=given.seed,
        api_key=api_key,
        tls=tls,
        log=given.log,
        announce=given.announce,
        exit_with_stdin=given.exit_with_stdin,
    )


def _tls(certificate: Path | None, key: Path | None, problems: list[str]) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            problems.append("--tls-key: give --tls-cert as well")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        problems.append(f"--tls-cert {certificate}{f' --tls-key {key}' if key else ''}: {error}")
        return None
    return context
