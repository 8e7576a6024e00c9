"""How well --find-capacity finds a capacity that is known: searches with other seeds, and how far off each was.

    python benchmarks/capacity.py                10 searches, about 20 minutes
    python benchmarks/capacity.py --seeds 2

Each is the real Locust against a simulator of its own, on loopback. That runs 20 requests at once and lets others wait,
so 20 users find a place at once, and of more some always wait. The goal lies between: first tokens take 40 ms and one
or two steps of 10 ms without waiting; one user too many makes everybody wait for a twentieth of a reply's second on
average, 50 ms. Replies have all sorts of lengths, so that places come free one by one. Exit status 1: fewer than nine
in ten were within 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

PLACES: Final = 20
CLOSE: Final = 0.05
NEEDED: Final = 0.9
GOAL: Final = "ttft_p90<75ms"
ENGINE: Final = ("--max-batch", str(PLACES), "--prefill-base", "40", "--prefill-per-token", "0", "--decode-base", "10")
REPLIES: Final = ("--decode-per-seq", "0", "--jitter", "0.05", "--output-tokens", "100")
CHAT: Final = Path(__file__).resolve().parent.parent / "locustfiles" / "chat.py"


def search(seed: int, folder: Path) -> dict[str, Any]:
    """The answer of one search. Raises RuntimeError with what was printed if there is none."""
    prefixes = ("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    listen = ("--port", "0", "--announce", "--exit-with-stdin", "--seed", str(seed))
    serve = [sys.executable, "-m", "tokenswarm.simulator", *listen, *ENGINE, *REPLIES]
    with subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        command = [sys.executable, "-m", "locust", "-f", str(CHAT), "--headless", "--host", url, "--seed", str(seed)]
        command += ["--find-capacity", "--slo", GOAL, "--users", "200", "--run-dir", "run", "--run-time", "15m"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        server.kill()
    try:
        answer: dict[str, Any] = json.loads((folder / "run" / "run.json").read_text())["capacity"]["answer"]
    except (OSError, KeyError, TypeError):
        raise RuntimeError(f"Locust ended with {done.returncode}:\n{done.stderr[-2000:]}") from None
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="how many searches (default: %(default)s)")
    given = parser.parse_args()
    os.nice(5)
    close, began = 0, time.monotonic()
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                answer = search(seed, Path(folder))
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 2
        users = answer["users"]
        off = None if users is None else users / PLACES - 1
        close += users is not None and abs(users - PLACES) <= CLOSE * PLACES
        told = "no answer" if off is None else f"{users} users pass, {answer['failed_users']} fail, off by {off:+.0%}"
        print(f"seed {seed}: {told} ({answer['why']}, {answer['seconds']:.0f} s)", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"{close} of {given.seeds} within {CLOSE:.0%} of {PLACES} users, in {minutes:.1f} minutes")
    return 0 if close >= NEEDED * given.seeds else 1


if __name__ == "__main__":
    sys.exit(main())
