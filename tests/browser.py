"""A real Chromium for tests that open pages: Debian's, of the machine or from `make browser`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def executable() -> str | None:
    """The one that `make browser` left beside Python, or the machine's."""
    everywhere = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return next(filter(None, (shutil.which(name, path=everywhere) for name in NAMES)), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium, driven by playwright. Skips the test where either is missing."""
    found = executable()
    if found is None:
        pytest.skip("no chromium to open pages with: make browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive chromium with")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=list(QUIET))
        yield started
        started.close()
