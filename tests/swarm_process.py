"""A master and its workers: the real Locust, a process each, and what the run directory must hold of them."""

from __future__ import annotations

import json
import random
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from locust_process import CHAT, LocustProcess, read_rows
from simulator_process import Running

from tokenswarm.target import CHECK_ID

PATIENCE = 120.0
"""Seconds that anything may take, on a machine that does many things at once."""

Claim = Callable[[Path], None]


def all_hold(folder: Path, *claims: Claim) -> None:
    """Checks claims, each in a folder of its own. They mostly wait for processes, so all are checked at once."""
    with ThreadPoolExecutor(len(claims)) as pool:
        checked = []
        for claim in claims:
            own = folder / claim.__name__
            own.mkdir()
            checked.append((claim.__name__, pool.submit(claim, own)))
    broken = []
    for name, future in checked:
        if error := future.exception():
            error.add_note(f"in {name}")
            broken.append(error)
    if broken:
        raise BaseExceptionGroup(f"{len(broken)} of {len(claims)} claims do not hold", broken)


def free_port() -> str:
    """A port that nobody listens at, and that is given only once: not one of those that the kernel gives to others."""
    for port in _ports:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return str(port)
    raise AssertionError("no port is free")


_ports = iter(range(random.randrange(10_000, 25_000), 32_000))


def processes(count: int) -> tuple[str, ...]:
    """The options for so many forked workers, whose master has a port of its own: another one's would be taken."""
    port = free_port()
    return "--processes", str(count), "--master-bind-port", port, "--master-port", port


class Swarm:
    """A master in `folder`, with its run directory; each worker in a folder of its own inside."""

    def __init__(
        self, folder: Path, *options: str, master_host: str = "127.0.0.1", locustfile: Path = CHAT, **settings: Any
    ) -> None:
        self.folder = folder
        self.workers: list[LocustProcess] = []
        self._locustfile = locustfile
        self._port = free_port()
        self._master_host = master_host
        bind = ("--master", "--master-bind-port", self._port)
        self.master = LocustProcess(folder, *bind, *options, locustfile=locustfile, **settings)
        self.run_dir = self.master.run_dir

    def until(self, condition: Any, seconds: float = PATIENCE) -> Any:
        """Wait until `condition()` is true, and return what it gave."""
        return self.master.until(condition, seconds)

    @property
    def master_address(self) -> str:
        """Where workers connect to, for ZeroMQ."""
        return f"tcp://{self._master_host}:{self._port}"

    def join(self, *options: str, **settings: Any) -> LocustProcess:
        """Start one more worker."""
        folder = self.folder / f"worker-{len(self.workers)}"
        folder.mkdir()
        place = ("--worker", "--master-host", self._master_host, "--master-port", self._port)
        worker = LocustProcess(folder, *place, *options, **{"locustfile": self._locustfile, **settings})
        self.workers.append(worker)
        return worker

    def wait(self, exit_code: int = 0, seconds: float = PATIENCE) -> None:
        """Until the master has ended, with this exit code, and all workers."""
        code = self.master.wait(seconds)
        assert code == exit_code, f"exit code {code}; output:\n{self.output}"
        for worker in self.workers:
            worker.wait(PATIENCE)

    def end(self) -> None:
        for process in (self.master, *self.workers):
            process.end()

    @property
    def output(self) -> str:
        """What all of them have said."""
        said = [("master", self.master), *((f"worker {n}", worker) for n, worker in enumerate(self.workers))]
        return "\n".join(f"--- {name}:\n{process.output}" for name, process in said)

    def rows(self) -> list[dict[str, str]]:
        return read_rows(self.run_dir)

    def json(self, name: str) -> Any:
        return self.master.json(name)

    @property
    def manifest(self) -> Any:
        return self.json("run.json")

    def started(self) -> bool:
        """Whether the load is on: there are rows."""
        path = self.run_dir / "requests.csv"
        return path.exists() and path.read_bytes().count(b"\n") > 1

    def rows_by_worker(self) -> dict[int, list[dict[str, str]]]:
        """The rows so far, by the rank of their worker."""
        found: dict[int, list[dict[str, str]]] = {}
        for row in read_rows(self.run_dir) if self.started() else ():
            found.setdefault(int(row["worker"]), []).append(row)
        return found

    def all_at_work(self, count: int | None = None) -> bool:
        """Whether each of `count` workers, or of all that were started, has delivered rows."""
        return len(self.rows_by_worker()) == (len(self.workers) if count is None else count)

    def entry(self, worker: LocustProcess, directory: Path | None = None) -> Any:
        """What run.json says about this worker."""
        manifest = json.loads(((directory or self.run_dir) / "run.json").read_text())
        (found,) = (entry for entry in manifest["workers"] if entry["pid"] == worker.process.pid)
        return found

    def rescue(self, rank: int) -> Path:
        """Where a worker without a master leaves what it could not deliver."""
        return self.run_dir.with_name(f"{self.run_dir.name}-worker-{rank}")


@contextmanager
def swarm(folder: Path, workers: int, *options: str, **settings: Any) -> Iterator[Swarm]:
    """A master and so many workers, all ended with the block."""
    run = Swarm(folder, *options, **settings)
    try:
        for _ in range(workers):
            run.join()
        yield run
    finally:
        run.end()


@contextmanager
def headless_swarm(folder: Path, workers: int, host: str | None, *options: str, **settings: Any) -> Iterator[Swarm]:
    """The same without a web page: it starts when all workers are there. No `host`: the embedded simulator."""
    expected = ("--headless", "--expect-workers", str(max(workers, 1)), *(("--host", host) if host else ()))
    with swarm(folder, workers, *expected, *options, **settings) as run:
        yield run


def pause(process: LocustProcess) -> None:
    process.process.send_signal(signal.SIGSTOP)


def resume(process: LocustProcess) -> None:
    process.process.send_signal(signal.SIGCONT)


def served(server: Running) -> list[str]:
    """The ids of the load's requests that the simulator has done with, however they ended."""
    ids = [json.loads(line)["id"] for line in server.log_path.read_text().splitlines()]
    return [request_id for request_id in ids if request_id != CHECK_ID]


def ids_of(*directories: Path) -> Counter[str]:
    """How many rows each request has in these run directories."""
    return Counter(row["id"] for directory in directories for row in read_rows(directory))


def each_served_request_has_one_row(server: Running, *directories: Path) -> bool:
    """Not one too few, and none twice. Says which, if not. Requests that never reached the server may have rows too."""
    rows, ids = ids_of(*directories), served(server)
    twice = [request_id for request_id, count in rows.items() if count > 1]
    assert not twice, f"{len(twice)} requests have several rows: {twice[:5]}"
    assert len(set(ids)) == len(ids), "an id went out twice"
    missing = set(ids) - rows.keys()
    assert not missing, f"{len(missing)} of {len(ids)} served requests have no row: {sorted(missing)[:5]}"
    return True


def is_whole(run: Swarm, server: Running) -> bool:
    """A run that lost nothing, by every account: the simulator's, the rows', the intervals' and run.json's own."""
    assert each_served_request_has_one_row(server, run.run_dir)
    manifest, rows, lines = run.manifest, read_rows(run.run_dir), run.master.intervals()
    assert manifest["rows"] == {"written": len(rows), "lost": 0}
    assert sum(line["started"] for line in lines) == len(rows)
    for worker in manifest["workers"]:
        rank = worker["index"]
        own = [line for line in lines if line["worker"] == rank]
        assert [line["seq"] for line in own] == list(range(len(own))), f"the intervals of worker {rank}"
        mine = sum(int(row["worker"]) == rank for row in rows)
        assert sum(line["started"] for line in own) == mine == worker["rows"]
        assert (worker["status"], worker["missing_batches"], worker["in_flight"]) == ("finished", 0, 0), worker
        assert worker["batches"] == len(own)
    assert {int(row["worker"]) for row in rows} <= {worker["index"] for worker in manifest["workers"]}
    return True
