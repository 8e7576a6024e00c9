"""The GPUs as a source of readings: finds them, and finds them again after a lost card or a driver restart."""

from __future__ import annotations

import logging
import time
from typing import Final

import pynvml as nvml

from metrics_exporter.gpu import identity
from metrics_exporter.gpu.card import DRIVER_GONE, Card
from metrics_exporter.gpu.fields import FAST, NOT_OF_A_MIG_PARENT, OF_MIG, SLOW, Handle
from metrics_exporter.gpu.gpm import Activity
from metrics_exporter.gpu.metrics import NVML
from metrics_exporter.metric import Device, Reading, Values

log = logging.getLogger("metrics_exporter")

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 60.0
LOOK_AGAIN_SECONDS: Final = 30.0
"""How often the cards are listed anew: MIG instances come and go while the driver runs."""


class GpuSource:
    """All GPUs of the driver. Never raises for what NVML answers."""

    name = "gpu"

    def __init__(self, first_retry: float = FIRST_RETRY_SECONDS) -> None:
        self._first_retry = self._wait = first_retry
        self._retry_at = self._look_at = 0.0
        self._up = False
        self._starts = 0
        self._reason = ""
        self._versions: dict[str, str] = {}
        self._cards: dict[str, Card] = {}
        """By device id, lost ones too."""
        self._slow: Values = {}

    def read(self, full: bool) -> Reading:
        now = time.monotonic()
        if not self._up and now >= self._retry_at:
            self._start(now)
        fast: Values = {}
        if self._up:
            try:
                if now >= self._look_at:
                    self._look(now)
                fast = self._read_cards(full)
            except nvml.NVMLError as error:
                self._lose_driver(now, error)
            else:
                self._start_again_for_lost_cards(now, full)
        if not self._up:
            fast = {card.device.id: {"up": 0.0} for card in self._cards.values()}
            self._slow = {}
        fast["nvml"] = {"up": float(self._up)}
        slow = {**self._slow, "nvml": {"starts_total": float(self._starts)}}
        return Reading((self._driver(), *map(_told, self._cards.values())), fast, slow)

    def close(self) -> None:
        if self._up:
            self._shut_down()

    def _driver(self) -> Device:
        facts = {"up": self._up, **({"reason": self._reason} if self._reason else {})}
        return Device("nvml", NVML, info=self._versions if self._up else {}, facts=facts)

    def _read_cards(self, full: bool) -> Values:
        fast: Values = {}
        slow: Values = {}
        for id, card in self._cards.items():
            quick, rest = card.read(full) if full or not card.lost else ({}, {})
            if card.lost:
                fast[id] = {"up": 0.0}
                continue
            fast[id] = {"up": 1.0, **quick}
            slow[id] = {**rest, **_standing(card)} if full else self._slow.get(id, {})
        self._slow = slow
        return fast

    def _start(self, now: float) -> None:
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self._say_down(error)
            self._wait_longer(now)
            return
        if self._reason:
            log.warning("NVML answers")
        self._up, self._reason = True, ""
        self._starts += 1
        self._versions = identity.versions()
        self._look_at = now

    def _shut_down(self) -> None:
        for card in self._cards.values():
            card.close()
        self._up = False
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            log.debug("nvmlShutdown: %s", error)

    def _lose_driver(self, now: float, error: nvml.NVMLError) -> None:
        self._shut_down()
        self._say_down(error)
        self._retry_at = now + self._wait

    def _say_down(self, error: nvml.NVMLError) -> None:
        reason = str(error)
        if error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            reason += " (the driver was replaced while this ran: start the exporter again)"
        if reason != self._reason:
            log.warning("no GPU metrics: %s; it is tried again every minute or sooner", reason)
        self._reason = reason

    def _wait_longer(self, now: float) -> None:
        self._retry_at = now + self._wait
        self._wait = min(2 * self._wait, LAST_RETRY_SECONDS)

    def _start_again_for_lost_cards(self, now: float, full: bool) -> None:
        """A card that was reset is often seen only by a process that starts NVML anew."""
        if not any(card.lost for card in self._cards.values()):
            self._wait, self._retry_at = self._first_retry, now + self._first_retry
        elif full and now >= self._retry_at:
            self._shut_down()
            self._wait_longer(now)
            self._start(now)

    def _look(self, now: float) -> None:
        """List the cards. One that is not listed any more stays, as lost; a MIG instance that is gone, goes."""
        self._look_at = now + LOOK_AGAIN_SECONDS
        known, self._cards = self._cards, {}
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                self._take(known, handle, identity.gpu(handle, index, self._versions))
                for instance in identity.mig_instances(handle):
                    self._take(known, instance, identity.mig(instance, index))
            except nvml.NVMLError as error:
                if error.value in DRIVER_GONE:
                    self._cards = known | self._cards
                    raise
                self._keep_lost(known, index, str(error))
        for id, card in known.items():
            if id not in self._cards and card.device.kind.name == "gpu" and card.handle is not None:
                self._cards[id] = card
                card.lost = card.lost or self._lost(card, "it is not listed any more")

    def _take(self, known: dict[str, Card], handle: Handle, device: Device) -> None:
        old = known.get(device.id)
        if old is not None and old.device.facts.get("mig") == device.facts.get("mig"):
            old.handle, old.device = handle, device
            old.ask_again()
            self._cards[device.id] = old
            return
        if device.kind.name == "mig":
            card = Card(handle, device, (), OF_MIG)
        else:
            without = NOT_OF_A_MIG_PARENT if device.facts["mig"] else frozenset()
            fast = [field for field in FAST if field not in without]
            slow = [field for field in SLOW if field not in without]
            card = Card(handle, device, fast, [*slow, Activity()])
        log.info("%s: %s", card.name, device.info.get("name", "MIG instance"))
        if device.facts.get("mig"):
            log.warning("%s is split by MIG: it has no utilization of its own", card.name)
        self._cards[device.id] = card

    def _keep_lost(self, known: dict[str, Card], index: int, reason: str) -> None:
        """A card of which not even a handle can be had: the one known by this index, or one without a name."""
        of_this_index = (card for card in known.values() if card.device.labels[0] == str(index))
        card = next(
            (card for card in of_this_index if card.device.kind.name == "gpu"),
            Card(None, identity.unknown(index), (), ()),
        )
        card.lost = card.lost or self._lost(card, reason)
        self._cards[card.device.id] = card

    def _lost(self, card: Card, reason: str) -> str:
        log.error("%s cannot be found: %s", card.name, reason)
        return reason


def _standing(card: Card) -> dict[str, float]:
    """What is known of a card without asking it."""
    mig = card.device.facts.get("mig")
    split = {} if mig is None else {"mig_enabled": float(mig)}
    return {"read_errors_total": float(card.errors), **split}


def _told(card: Card) -> Device:
    """The device with what is to be said of it at present."""
    device = card.device
    facts = {**device.facts, "unsupported": card.unsupported(), **({"lost": card.lost} if card.lost else {})}
    return Device(device.id, device.kind, device.labels, device.info, facts)
