"""docker-compose.yml without Docker: each service's own command, a process on a machine on which all their names mean
its loopback. That machine is a network namespace; it needs Linux, root and util-linux.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import yaml
from locust_process import ROOT
from swarm_process import PATIENCE

COMPOSE = ROOT / "docker-compose.yml"
IMAGE_VARIABLE = "TOKENSWARM_IMAGE_ROOT"
"""Names the unpacked image (tests/build_image.sh), if services are to run in that, and not in this environment."""
USER = 1000
"""Of the image."""
CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def compose(**variables: str) -> dict[str, Any]:
    """The file as Docker would read it where these variables are set."""

    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        return variables.get(name) or default

    parsed = yaml.safe_load(re.sub(r"\$\{(\w+):-([^}]*)\}", value, COMPOSE.read_text()))
    assert isinstance(parsed, dict)
    return parsed


class Stack:
    """Services that run in `folder`. Raises OSError where the machine does not allow it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.services: dict[str, Any] = compose(**variables)["services"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folder = folder
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {' '.join(self.services)}\n")
        image = os.environ.get(IMAGE_VARIABLE, "")
        mounts = [f"mount --bind {hosts} {root}/etc/hosts" for root in {"", image}]
        if image:  # as Docker does, with the volumes of the file
            (folder / "runs").mkdir()
            os.chown(folder / "runs", USER, USER)
            folder.chmod(0o755)
            binds = {folder: folder, folder / "runs": "/load/runs", ROOT / "locustfiles": "/load/locustfiles"}
            mounts += [f"mkdir -p {image}{to} && mount --bind {of} {image}{to}" for of, to in binds.items()]
            mounts += [f"mount -t proc proc {image}/proc", f"mount --rbind /dev {image}/dev"]
        else:
            (folder / "locustfiles").symlink_to(ROOT / "locustfiles")
        script = " && ".join([*mounts, "ip link set lo up", "echo made", "exec cat"])
        self._machine = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._machine.stdout is not None
        if not self._machine.stdout.readline():
            raise OSError(self._machine.communicate()[1].decode().strip())
        spaces = (f"--{kind}=/proc/{self._machine.pid}/ns/{name}" for kind, name in (("net", "net"), ("mount", "mnt")))
        self._here = ["nsenter", *spaces, f"--wd={folder}"]
        path = "/opt/tokenswarm/bin" if image else Path(sys.executable).parent
        inside = ["chroot", f"--userspec={USER}:{USER}", image, "env", "--chdir=/load"] if image else []
        self._prefix = [*self._here, *inside]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOCUST_", "TOKENSWARM_", "LLM_", "OPENAI_"))}
        self._env = kept | {"PATH": f"{path}:{os.environ['PATH']}"}
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)

    def start(self, service: str, number: int = 1, env: Mapping[str, str] | None = None) -> None:
        """Its command, as the file has it."""
        self._run(f"{service}-{number}", [*self._prefix, *shlex.split(self.services[service]["command"])], env)

    def beside(self, name: str, command: list[str]) -> None:
        """A process of this machine's own beside the services."""
        self._run(name, [*self._here, *command])

    def _run(self, name: str, command: list[str], env: Mapping[str, str] | None = None) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=self._env | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def healthy(self, name: str) -> bool:
        """What its own health check says."""
        service = self.services[name]
        test = service["healthcheck"]["test"]
        if "build" not in service and shutil.which(shlex.split(test)[0]) is None:  # its image has it
            return True
        prefix = self._prefix if "build" in service else self._here
        command = [*prefix, "sh", "-c", test]
        return subprocess.run(command, env=self._env, capture_output=True, check=False).returncode == 0

    def inside(self, function: Callable[[], T]) -> T:
        """What this gives on that machine."""
        return self._thread.submit(function).result()

    def until(self, condition: Callable[[], T]) -> T:
        """Wait until this is true, and return it."""
        give_up = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < give_up, self.logs()
            time.sleep(0.1)
        return value

    def logs(self) -> str:
        """What all have said."""
        logs = {path.stem: path.read_text(errors="replace") for path in self._folder.glob("*.log")}
        return "\n".join(f"--- {name}:\n{text}" for name, text in logs.items())

    def close(self) -> None:
        for process in (*self.processes.values(), self._machine):
            process.kill()
            process.wait()
        self._thread.shutdown()
        for stream in (self._machine.stdin, self._machine.stdout, self._machine.stderr):
            if stream is not None:
                stream.close()

    def _enter(self) -> None:
        """Only the thread that calls it."""
        with open(f"/proc/{self._machine.pid}/ns/net") as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
