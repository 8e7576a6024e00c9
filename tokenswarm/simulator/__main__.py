"""`python -m tokenswarm.simulator`: start the server, say where it is, stop when told to."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import resource
import signal
import sys
import threading

from aiohttp import web

from tokenswarm.errors import OptionError
from tokenswarm.simulator.engine import Engine
from tokenswarm.simulator.options import Options, parse
from tokenswarm.simulator.pacing import EngineLoop
from tokenswarm.simulator.prefix_cache import PrefixCache
from tokenswarm.simulator.sendlog import SendLog
from tokenswarm.simulator.server import Simulator

SHUTDOWN_SECONDS = 0.2
BACKLOG = 4096


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM, SIGINT or, if asked, the end of stdin. Returns the exit code: 0, 1 cannot serve, 2 options."""
    try:
        options = parse(argv)
    except OptionError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    log = None
    if options.log is not None:
        try:
            log = SendLog(options.log)
        except OSError as error:
            print(f"simulator: --log {options.log}: {error.strerror}", file=sys.stderr)
            return 2
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(_serve(options, log))
        finally:
            if log is not None:
                log.close()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not to be had on every system; asyncio's own loop is slower and otherwise the same
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(options: Options, log: SendLog | None) -> int:
    loop = asyncio.get_running_loop()
    engine = Engine(
        options.latency,
        max_batch=options.max_batch,
        max_queue=options.max_queue,
        kv_cache_tokens=options.kv_cache_tokens,
        tokens_per_step=options.tokens_per_chunk,
        prefix_cache=PrefixCache(options.prefix_cache_tokens) if options.prefix_cache_tokens else None,
        seed=options.seed,
    )
    engine_loop = EngineLoop(engine, loop)
    simulator = Simulator(
        engine_loop,
        model=options.model,
        style=options.style,
        seed=options.seed,
        api_key=options.api_key,
        log=log,
    )
    runner = web.AppRunner(
        simulator.application(options.base_path),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await web.TCPSite(runner, options.host, options.port, ssl_context=options.tls, backlog=BACKLOG).start()
    except OSError as error:
        print(f"simulator: {_cannot_listen(options, error)}", file=sys.stderr)
        await runner.cleanup()
        return 1
    if options.exit_with_stdin:
        threading.Thread(target=_wait_for_stdin, args=(loop, stop), daemon=True).start()
    gc.freeze()  # what is there now stays, and need not be looked at by every collection
    _say_ready(options, runner.addresses[0][1])
    await stop.wait()
    await runner.cleanup()
    engine_loop.close()
    return 0


def _cannot_listen(options: Options, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {options.port} of {options.host} is in use by another program; "
            "choose another with --port, or --port 0 for a free one"
        )
    return f"cannot listen on {options.host} port {options.port}: {error.strerror or error}"


def _say_ready(options: Options, port: int) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"{'https' if options.tls else 'http'}://{host}:{port}{options.base_path}"
    if options.announce:
        print(json.dumps({"url": url, "model": options.model, "pid": os.getpid()}), flush=True)
    else:
        print(f"Simulated LLM server, model {options.model!r}, at {url} (Ctrl+C ends it)", flush=True)


def _wait_for_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    try:
        while os.read(0, 65536):
            pass
    except OSError:  # a closed descriptor is an end as well
        pass
    loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    sys.exit(main())
