"""What each path answers. No sockets here: a request's path and headers in, a status and bytes out."""

from __future__ import annotations

import gzip
import json
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from metrics_exporter import __version__
from metrics_exporter.metric import Device
from metrics_exporter.ring import Ring
from metrics_exporter.watch import Watch

_JSON: Final = "application/json"
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_SMALL: Final = 1024
"""Bytes below which compressing costs more than it saves."""
_FRONT: Final = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>metrics exporter</title><h1>metrics exporter</h1>
<ul><li><a href="metrics">metrics</a> for Prometheus
<li><a href="samples?since=0">samples?since=0</a> the samples that are kept
<li><a href="clock">clock</a><li><a href="healthz">healthz</a></ul></html>
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` beside Content-Type and Content-Length."""

    status: int
    type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Answers:
    """Everything that is served."""

    def __init__(
        self, registry: CollectorRegistry, ring: Ring, watches: Sequence[Watch], interval_s: float, window_s: float
    ) -> None:
        self._registry = registry
        self._ring = ring
        self._watches = watches
        self._about = {
            "host": platform.node(),
            "boot_id": _boot_id(),
            "instance": time.time_ns(),
            "exporter_version": __version__,
            "interval_s": interval_s,
            "window_s": window_s,
        }
        self._paths: dict[str, Callable[[str, Mapping[str, str]], Answer]] = {
            "/": lambda query, headers: Answer(200, "text/html; charset=utf-8", _FRONT.encode()),
            "/metrics": self._metrics,
            "/samples": self._samples,
            "/clock": lambda query, headers: _clock(),
            "/healthz": lambda query, headers: self._health(),
        }

    def get(self, target: str, headers: Mapping[str, str]) -> Answer:
        """For a request's target, as in `/samples?since=7`, and its headers with names in lower case."""
        path, _, query = target.partition("?")
        answer = self._paths.get(path)
        if answer is None:
            return _json(404, {"error": f"nothing at {path[:200]}", "paths": list(self._paths)})
        return answer(query, headers)

    def _metrics(self, query: str, headers: Mapping[str, str]) -> Answer:
        encode, type = choose_encoder(headers.get("accept", ""))
        return _packed(Answer(200, type, encode(self._registry)), headers)

    def _samples(self, query: str, headers: Mapping[str, str]) -> Answer:
        given = parse_qs(query, keep_blank_values=True).get("since")
        if given is not None and not (len(given) == 1 and _NUMBER.fullmatch(given[0])):
            return _json(400, {"error": "since must be one whole number, 0 or more, or be left out"})
        new = self._ring.since(None if given is None else int(given[0]))
        devices = {device.id: device for watch in self._watches if watch.latest for device in watch.latest.devices}
        told = {
            **self._about,
            "first": new.first,
            "next": new.next,
            "dropped": new.dropped,
            "devices": [_facts(device) for device in devices.values()],
            "samples": [sample.as_json() for sample in new.samples],
        }
        return _packed(_json(200, told), headers)

    def _health(self) -> Answer:
        """200 as long as readings are made; GPUs that are lost are no fault of the exporter."""
        fresh = {watch.source.name: watch.fresh() is not None for watch in self._watches}
        status = "ok" if all(fresh.values()) else "stalled"
        told = {"status": status, "sources": fresh, "exporter_version": __version__}
        return _json(200 if status == "ok" else 503, told)


def _clock() -> Answer:
    return _json(200, {"wall_ns": time.time_ns(), "mono_ns": time.monotonic_ns()})


def _facts(device: Device) -> dict[str, Any]:
    labels = dict(zip(device.kind.labels, device.labels, strict=True))
    return {"device": device.id, "kind": device.kind.name, **labels, **device.info, **device.facts}


def _json(status: int, value: Any) -> Answer:
    return Answer(status, _JSON, json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n")


def _packed(answer: Answer, headers: Mapping[str, str]) -> Answer:
    """Compressed, if that is wanted and worth it."""
    if len(answer.body) < _SMALL or not gzip_accepted(headers.get("accept-encoding", "")):
        return answer
    body = gzip.compress(answer.body, compresslevel=1)
    return Answer(answer.status, answer.type, body, {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})


def _boot_id() -> str:
    """Changes when the machine starts, and its monotonic clock with it; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
