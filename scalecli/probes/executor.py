"""The local engine: a queue of units, a number of slots, one child process a slot.

A child that dies or hangs is replaced, and takes nothing with it but the unit it was training. The engine writes no
store and draws nothing: it yields what happens, in the thread of its caller.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from scalecli.probes.units import Unit

SILENCE_SECONDS = 600.0
"""A child that reports nothing for this long hangs: it reports every few training steps."""


@dataclass(frozen=True, slots=True)
class UnitStarted:
    unit: Unit


@dataclass(frozen=True, slots=True)
class UnitStep:
    """`step` of `steps` of the run that the unit is training at the moment."""

    unit: Unit
    run_id: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class UnitEnded:
    """`file` has the records; `reason` says why the child died or was killed, and is empty when it did not."""

    unit: Unit
    file: Path
    reason: str


Event = UnitStarted | UnitStep | UnitEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where a child runs: its device, its threads, and what it is to see of the machine."""

    device: str
    threads: int = 1
    visible_device: str | None = None

    def environment(self) -> dict[str, str]:
        own = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self.visible_device is not None:
            own["CUDA_VISIBLE_DEVICES"] = self.visible_device
        return {**os.environ, **own}


def run_units(
    units: Sequence[Unit], slots: Sequence[Slot], attempts: Path, *, timeout: float | None = None
) -> Iterator[Event]:
    """Trains every unit once. Closing the iterator (Ctrl-C does) kills the children.

    `timeout` is the longest a run may take [s]; a unit may take it once for each of its runs. A unit of several runs
    whose child dies is tried again run by run, so that one bad run cannot take the others with it.
    """
    work: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
    events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
    for unit in units:
        work.put(unit)
    servers = [_Server(slot, work, events, attempts, timeout) for slot in slots[: max(1, len(units))]]
    for server in servers:
        server.start()
    try:
        pending = len(units)
        while pending:
            event = events.get()
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, UnitEnded):
                pending -= 1
                if event.reason and len(event.unit) > 1:
                    retries = unfinished(event.unit, event.file)
                    pending += len(retries)
                    for retry in retries:
                        work.put((retry,))
            yield event
    finally:
        for _ in servers:
            work.put(None)
        for server in servers:
            server.stop()


def unfinished(unit: Unit, file: Path) -> list[Any]:
    """Runs of the unit without a result in the attempt's file; a last line cut short is no result."""
    done = set()
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record.get("kind") == "result":
            done.add(record.get("run_id"))
    return [config for config in unit if config.run_id not in done]


class _Server(threading.Thread):
    """Takes units from the queue and hands them to its child, one after the other."""

    def __init__(
        self,
        slot: Slot,
        work: queue.SimpleQueue[Unit | None],
        events: queue.SimpleQueue[Event | BaseException],
        attempts: Path,
        timeout: float | None,
    ) -> None:
        super().__init__(daemon=True)
        self._slot = slot
        self._work = work
        self._events = events
        self._attempts = attempts
        self._timeout = timeout
        self._child: _Child | None = None
        self._stopping = False

    def run(self) -> None:
        try:
            while (unit := self._work.get()) is not None and not self._stopping:
                self._serve(unit)
        except OSError as error:  # no process can be started, or the attempts' folder is gone
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
        file = self._attempts / f"{unit[0].run_id}-{time.time_ns():x}.jsonl"
        self._events.put(UnitStarted(unit))
        child = self._child = self._child or _Child(self._slot)
        reason = child.train(unit, file, self._timeout, self._events)
        if reason:
            self._retire()
        self._events.put(UnitEnded(unit, file, reason))

    def _retire(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()


class _Child:
    """One process of `scalecli.probes.child`; its standard error is kept for the reason it died."""

    def __init__(self, slot: Slot) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scalecli.probes.child", slot.device, str(slot.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=slot.environment(),
            # The terminal's Ctrl-C is the driver's alone: it decides when the children end.
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def train(
        self, unit: Unit, file: Path, timeout: float | None, events: queue.SimpleQueue[Event | BaseException]
    ) -> str:
        """Trains the unit; empty, or why the child did not come to its end."""
        assert self._process.stdin is not None
        task = {"file": str(file), "configs": [asdict(config) for config in unit]}
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._death()
        allowed = timeout * len(unit) if timeout else math.inf
        deadline = time.monotonic() + allowed
        while True:
            patience = min(SILENCE_SECONDS, deadline - time.monotonic())
            try:
                line = self._lines.get(timeout=max(0.0, patience))
            except queue.Empty:
                limit = f"took longer than {timeout:g} s" if patience < SILENCE_SECONDS else "hangs"
                return f"{limit}: killed"
            if line is None:
                return self._death()
            report = json.loads(line)
            if report["event"] == "done":
                return ""
            if report["event"] == "ready":  # importing torch is not the run's time
                deadline = time.monotonic() + allowed
            if report["event"] == "step":
                events.put(UnitStep(unit, report["run_id"], report["step"], report["steps"]))

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it was never told does not matter any more
            self._process.stdin.close()
        self._log.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as reports:
            for line in reports:
                self._lines.put(line)
        self._lines.put(None)

    def _death(self) -> str:
        """Exit code and last words."""
        code = self._process.wait()
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"{how}: {words[-1]}" if words and code > 0 else how
