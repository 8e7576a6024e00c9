"""Runs a command until stdin is closed or the command ends, then ends whatever it started.

`python supervise.py COMMAND…`: a model server starts processes of its own, and none may outlive the tests, even if
those are killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress


def main(command: list[str]) -> int:
    """The command's exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def watch() -> None:
        sys.stdin.buffer.read()
        end()

    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    end()
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
