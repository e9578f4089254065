"""The local engine: a queue of units, a number of slots, one child process a slot.

A child that dies or hangs is replaced, and takes nothing with it but the unit it was training.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scalecli.errors import ProbeError
from scalecli.probes.engines.engine import Capacity, Event, UnitEnded, UnitStarted, attempt_file, event_of
from scalecli.probes.engines.process import ChildProcess, Sharding, Slot
from scalecli.probes.engines.slurm_queue import refuse_live_jobs
from scalecli.probes.units import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEngine:
    """This machine: by default one probe a CPU thread, or one a GPU.

    `slots` is how many units train at a time, `devices` over how many devices each is spread, `share` how many
    units share one.
    """

    device: str = "auto"
    slots: int | None = None
    threads: int = 1
    devices: int = 1
    sharding: Sharding = "ddp"
    share: int = 1

    def capacity(self) -> Capacity:
        places = self.places()
        return Capacity(places[0].device, len(places), self.devices)

    @contextmanager
    def session(self, attempts: Path, *, timeout: float | None) -> Iterator[_Session]:
        refuse_live_jobs(attempts)
        session = _Session(self.places(), attempts, timeout)
        try:
            yield session
        finally:
            session.stop()

    def places(self) -> list[Slot]:
        """CPU threads shared out, or GPUs in turn.

        Raises:
            ProbeError: the device does not exist, or a probe is to have more than there are.
        """
        if self.device == "cpu":
            return self._cpu_places()
        import torch

        from scalecli.probes.device import resolve_device

        place = resolve_device(self.device)
        if place.type == "cpu":
            return self._cpu_places()
        # Numbers count within what this process may see; children must be told the names it was given.
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
        gpus = [names[place.index]] if place.index is not None else names
        if self.devices > len(gpus):
            raise ProbeError(
                f"a probe is to train on {self.devices} GPUs, there are {len(gpus)}",
                hint=f"--devices-per-probe {len(gpus)}",
            )
        groups = [
            ",".join(gpus[first : first + self.devices])
            for first in range(0, len(gpus) - self.devices + 1, self.devices)
        ]
        return [
            Slot(
                device="cuda",
                threads=self.threads,
                devices=self.devices,
                sharding=self.sharding,
                visible_devices=groups[slot % len(groups)],
            )
            for slot in range(self.slots or len(groups) * self.share)
        ]

    def _cpu_places(self) -> list[Slot]:
        threads = self.threads * self.devices
        count = self.slots or max(1, len(os.sched_getaffinity(0)) // threads) * self.share
        return [
            Slot(device="cpu", threads=self.threads, devices=self.devices, sharding=self.sharding)
        ] * count


class _Session:
    """Servers that share one queue of units, one a slot; they begin with the first units."""

    def __init__(self, slots: Sequence[Slot], attempts: Path, timeout: float | None) -> None:
        self._slots = slots
        self._attempts = attempts
        self._timeout = timeout
        self._work: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        self._servers: list[_Server] = []

    @property
    def running(self) -> Sequence[Unit]:
        return ()  # children end with their driver

    def submit(self, units: Sequence[Unit]) -> None:
        for unit in units:
            self._work.put(unit)
        for slot in self._slots[len(self._servers) : len(units)]:
            server = _Server(slot, self._work, self._events, self._attempts, self._timeout)
            server.start()
            self._servers.append(server)

    def wait(self) -> Event:
        event = self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    def stop(self) -> None:
        """Kills the children."""
        for _ in self._servers:
            self._work.put(None)
        for server in self._servers:
            server.stop()


class _Server(threading.Thread):
    """Takes units from the queue and hands them to its child, one after the other."""

    def __init__(
        self,
        slot: Slot,
        work: queue.SimpleQueue[Unit | None],
        events: queue.SimpleQueue[Event | Exception],
        attempts: Path,
        timeout: float | None,
    ) -> None:
        super().__init__(daemon=True)
        self._slot = slot
        self._work = work
        self._events = events
        self._attempts = attempts
        self._timeout = timeout
        self._child: ChildProcess | None = None
        self._stopping = False

    def run(self) -> None:
        try:
            while (unit := self._work.get()) is not None and not self._stopping:
                self._serve(unit)
        except Exception as error:  # no records can be written, no process started: the session raises it
            self._events.put(error)
        finally:
            self._retire()

    def stop(self) -> None:
        """Kills the child, the one that is being started too, and waits for the thread."""
        self._stopping = True
        while self.is_alive():
            if self._child is not None:
                self._child.kill()
            self.join(0.05)

    def _serve(self, unit: Unit) -> None:
        file = attempt_file(self._attempts, unit)
        self._events.put(UnitStarted(unit))
        child = self._child = self._child or ChildProcess(self._slot)
        for report in child.train(unit, file, timeout=self._timeout):
            event = event_of(unit, file, report)
            if isinstance(event, UnitEnded) and event.reason:
                self._retire()
            self._events.put(event)

    def _retire(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()
