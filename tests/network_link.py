"""Two machines on one: network namespaces, joined by a cable whose delay and loss are set, and that can be pulled out.

`network()` starts this file as a process that makes both and carries every packet between their TUN devices itself;
with it they go. It needs Linux, root, CAP_NET_ADMIN, /dev/net/tun and util-linux, not the kernel's netem.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

ADDRESSES = ("192.0.2.1", "192.0.2.2")
DEVICE = "cable0"
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000


@dataclass
class Network:
    """Two namespaces that see each other at `ADDRESSES`."""

    process: subprocess.Popen[bytes]
    prefixes: tuple[tuple[str, ...], tuple[str, ...]]
    """The words that make a command line one of the first, and of the second."""

    def pull_out(self) -> None:
        """No packet goes through any more."""
        self._tell(b"out\n")

    def plug_in(self) -> None:
        self._tell(b"in\n")

    def _tell(self, word: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word)
        self.process.stdin.flush()


@contextmanager
def network(to_second_ms: float, to_first_ms: float, loss: float) -> Iterator[Network]:
    """Packets take so long, each way, and a share of them, `loss`, never arrives.

    Raises OSError, with the reason, where the machine does not allow it.
    """
    given = (to_second_ms, to_first_ms, loss)
    command = [sys.executable, __file__, *map(str, given)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise OSError(process.communicate()[1].decode().strip().splitlines()[-1])
        first, second = (f"--net=/proc/{process.pid}/fd/{fd}" for fd in json.loads(line))
        yield Network(process, (("nsenter", first), ("nsenter", second)))
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


# The process


def main() -> NoReturn:
    to_second_ms, to_first_ms, loss = map(float, sys.argv[1:])
    spaces, devices = zip(*(make_namespace(address) for address in ADDRESSES), strict=True)
    print(json.dumps(spaces), flush=True)
    carry(devices, (to_second_ms / 1e3, to_first_ms / 1e3), loss)


def make_namespace(address: str) -> tuple[int, int]:
    """A network namespace of its own, and its end of the cable: two descriptors."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"no network namespace: {os.strerror(ctypes.get_errno())}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    for words in (f"addr add {address}/24 dev {DEVICE}", f"link set {DEVICE} up", "link set lo up"):
        subprocess.run(["ip", *words.split()], check=True)
    return os.open("/proc/self/ns/net", os.O_RDONLY), device


def carry(devices: tuple[int, ...], delays: tuple[float, ...], loss: float) -> NoReturn:
    """Every packet to the other end when its time has come, until stdin is closed; "out" and "in" pull and plug."""
    chance = random.Random(1)
    under_way: list[tuple[float, int, int, bytes]] = []
    number, plugged_in = 0, True
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        ready, _, _ = select.select([0, *devices], [], [], wait)
        if 0 in ready:
            told = os.read(0, 100)
            if not told:
                sys.exit()
            plugged_in = told.split()[-1] == b"in"
        for end, device in enumerate(devices):
            if device in ready:
                packet = os.read(device, 65536)
                if plugged_in and chance.random() >= loss:
                    number += 1
                    heapq.heappush(under_way, (time.monotonic() + delays[end], number, devices[1 - end], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, device, packet = heapq.heappop(under_way)
            with suppress(OSError):  # a full queue loses packets as well
                os.write(device, packet)


if __name__ == "__main__":
    main()
