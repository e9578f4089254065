"""What a sweep asks of an engine, and what it hears from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scalecli.errors import DataError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.process import Ended, Report
from scalecli.probes.units import Unit, plan_units


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
    """`file` has the records; `reason` says why the unit did not come to its end, and is empty when it did.

    `lost` means that the place went (a node, say), not the unit: elsewhere it would have come to its end.
    """

    unit: Unit
    file: Path
    reason: str = ""
    lost: bool = False


Event = UnitStarted | UnitStep | UnitEnded


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine trains on: the type of its devices, how many units at a time, and how many devices for each."""

    device_type: str
    slots: int
    devices: int = 1

    def units(self, configs: Iterable[ProbeConfig]) -> list[Unit]:
        """The runs as units that fill the slots."""
        return plan_units(configs, device_type=self.device_type, slots=self.slots, devices=self.devices)

    def like_this_machine(self) -> bool:
        """Does this machine have such a device, so that steps can be timed on it?"""
        if self.device_type == "cpu":
            return True
        import torch

        return torch.cuda.is_available()


class Session(Protocol):
    """Units on their way. A session is used from one thread."""

    @property
    def running(self) -> Sequence[Unit]:
        """Units that an earlier driver started and that outlived it; they end in this session."""

    def submit(self, units: Sequence[Unit]) -> None:
        """Train these, in this order as far as there are places."""

    def wait(self) -> Event:
        """The next event; every unit ends once for each time it was submitted.

        Raises:
            DataError: the records can no longer be written down, so that nothing more can be gained.
        """


class Engine(Protocol):
    """Raises ProbeError where it cannot be reached, or lacks the devices that were asked for."""

    def capacity(self) -> Capacity: ...

    def session(self, attempts: Path, *, timeout: float | None) -> AbstractContextManager[Session]:
        """Leaving the block stops what can be stopped.

        `timeout` is the longest a run may take [s]; a unit may take it once for each of its runs.
        """


def attempt_file(attempts: Path, unit: Unit) -> Path:
    """A new name for the records of an attempt."""
    return attempts / f"{unit[0].run_id}-{time.time_ns():x}.jsonl"


def event_of(unit: Unit, file: Path, report: Report) -> Event:
    """What a child reported, as an event.

    Raises:
        DataError: the child could not write its records.
    """
    if not isinstance(report, Ended):
        return UnitStep(unit, report.run_id, report.step, report.steps)
    if report.unwritable:
        raise DataError(
            f"records cannot be written to {file.parent}: {report.reason}; the runs that are finished are kept",
            hint="free some space, and run the same command again",
        )
    return UnitEnded(unit, file, report.reason)


def unfinished(unit: Unit, file: Path) -> list[ProbeConfig]:
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
