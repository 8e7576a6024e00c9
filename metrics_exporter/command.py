"""`python -m metrics_exporter`: put the parts together, say where it is, stop when told to."""

from __future__ import annotations

import errno
import gc
import ipaddress
import json
import logging
import math
import os
import platform
import signal
import sys
import threading
from typing import Final

from metrics_exporter.answers import Answers
from metrics_exporter.csv_file import CsvFile
from metrics_exporter.dcgm import DcgmPage
from metrics_exporter.gpu.processes import memory_by_process
from metrics_exporter.gpu.source import GpuSource
from metrics_exporter.host.source import HostSource
from metrics_exporter.options import OptionError, Options, parse
from metrics_exporter.page import Page, registry
from metrics_exporter.ring import Ring
from metrics_exporter.server import Server
from metrics_exporter.watch import Watch

log = logging.getLogger("metrics_exporter")

EXIT_CANNOT_SERVE: Final = 1
EXIT_REFUSED: Final = 2
_STOP_SECONDS: Final = 2.0


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM, SIGINT or, if asked, the end of stdin. Returns 0, 1 (cannot serve) or 2 (options)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        options = parse(arguments)
    except OptionError as error:
        return _refuse(str(error))
    ring = Ring(max(2, math.ceil(2 * options.history / options.window)))
    csv = None
    if options.csv is not None:
        try:
            csv = CsvFile(options.csv, ring, platform.node())
        except OSError as error:
            return _refuse(f"--csv {options.csv}: {error.strerror}")
        except ValueError as error:
            return _refuse(f"--csv {options.csv}: {error}")
    watches = gpus, _ = _watches(options, ring)
    pages = [Page(watches, csv), *([DcgmPage(gpus)] if options.dcgm else [])]
    answers = Answers(registry(pages), ring, watches, options.interval, options.window)
    try:
        server = Server((options.listen, options.port), answers, options.passwords, options.tls)
    except OSError as error:
        print(f"metrics_exporter: {_cannot_listen(options, error)}", file=sys.stderr)
        return EXIT_CANNOT_SERVE
    _serve(options, server, watches, csv)
    return 0


def _refuse(problem: str) -> int:
    print(f"metrics_exporter: {problem}", file=sys.stderr)
    return EXIT_REFUSED


def _watches(options: Options, ring: Ring) -> tuple[Watch, Watch]:
    gpus = Watch(GpuSource(), ring, options.interval, options.per_window)

    def gpu_memory() -> dict[int, float]:
        latest = gpus.fresh()
        return {} if latest is None else memory_by_process(latest.reading.slow)

    return gpus, Watch(HostSource(options.processes, gpu_memory), ring, options.interval, options.per_window)


def _serve(options: Options, server: Server, watches: tuple[Watch, ...], csv: CsvFile | None) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.exit_with_stdin:
        threading.Thread(target=_wait_for_stdin, args=(stop,), daemon=True).start()
    for watch in watches:
        watch.start()
    if csv is not None:
        csv.start()
    threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
    gc.freeze()  # what is there now stays, and need not be looked at by every collection
    _say_ready(options, server.server_address[1])
    stop.wait()
    server.shutdown()
    server.server_close()
    for watch in watches:
        watch.stop(_STOP_SECONDS)
    if csv is not None:
        csv.close(_STOP_SECONDS)


def _cannot_listen(options: Options, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {options.port} of {options.listen} is in use by another program; "
            "choose another with --port, or --port 0 for a free one"
        )
    return f"cannot listen on {options.listen} port {options.port}: {error.strerror or error}"


def _say_ready(options: Options, port: int) -> None:
    host = f"[{options.listen}]" if ":" in options.listen else options.listen
    url = f"{'https' if options.tls else 'http'}://{host}:{port}"
    if not _is_loopback(options.listen):
        if options.passwords is None:
            log.warning("whoever reaches %s can read this; --basic-auth-file asks for a password", url)
        elif options.tls is None:
            log.warning("passwords go to %s in clear; --tls-cert encrypts them", url)
    if options.announce:
        print(json.dumps({"url": url, "pid": os.getpid()}), flush=True)
    else:
        print(f"Metrics at {url}/metrics, samples at {url}/samples (Ctrl+C ends it)", flush=True)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _wait_for_stdin(stop: threading.Event) -> None:
    try:
        while os.read(0, 65536):
            pass
    except OSError:  # a closed descriptor is an end as well
        pass
    stop.set()
