"""A unit on its node: what the job runs there, and the status file by which its driver knows how it is doing."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalecli.probes.engines.engine import Capacity, unfinished
from scalecli.probes.engines.process import ChildProcess, Ended, Report, Slot, Step
from scalecli.probes.units import Unit

STATUS_SECONDS = 2.0
"""Between two writings of a status: the disk is everybody's."""
WARNING_SECONDS = 90
"""How long before the end of a job's time Slurm is asked to warn it."""
WARNINGS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What Slurm sends to every process of a job that is about to be preempted or to run out of time."""


@dataclass(slots=True)
class UnitJob:
    """Picklable, and callable on the node. Requeued, it trains what it had not finished.

    `minutes` is the time limit of the job; `begun` is when it began on this node [s, monotonic].
    """

    unit: Unit
    file: Path
    status: Path
    slot: Slot
    timeout: float | None
    minutes: int
    begun: float = 0.0

    def __call__(self) -> None:
        self.begun = time.monotonic()
        report: Report = Step(self.unit[0].run_id, 0, self.unit[0].steps)
        write_status(self.status, report)
        try:
            report = self._train()
        except Exception as error:  # submitit raises here when the job is not to be queued again
            reason = (
                f"its Slurm job ran out of its {self.minutes} minutes" if self._out_of_time() else str(error)
            )
            write_status(self.status, Ended(reason))
            raise
        write_status(self.status, report)

    def checkpoint(self) -> Any:
        """What submitit queues again when Slurm takes the node away; None when the time is over: it would be again."""
        if self._out_of_time():
            return None
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _out_of_time(self) -> bool:
        return time.monotonic() > self.begun + 60 * self.minutes - 2 * WARNING_SECONDS

    def _train(self) -> Ended:
        with _deaf_to_warnings():
            child = ChildProcess(self.slot)
        with child:
            for unit in Capacity(self.slot.device, 1, self.slot.devices).units(
                unfinished(self.unit, self.file)
            ):
                ended = self._train_with(child, unit)
                if ended.reason:
                    return ended
        return Ended()

    def _train_with(self, child: ChildProcess, unit: Unit) -> Ended:
        written = time.monotonic()
        for report in child.train(unit, self.file, timeout=self.timeout):
            if isinstance(report, Ended):
                return report
            if time.monotonic() > written + STATUS_SECONDS:
                write_status(self.status, report)
                written = time.monotonic()
        raise AssertionError("a child's last report is that it ended")


@contextmanager
def _deaf_to_warnings() -> Iterator[None]:
    """Processes started meanwhile outlive Slurm's warnings: the job decides when its child ends."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in WARNINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_status(file: Path, report: Report) -> None:
    """Whole or not at all: its reader is another machine."""
    scratch = file.with_suffix(".part")
    scratch.write_text(json.dumps(asdict(report)), encoding="utf-8")
    scratch.replace(file)


def read_status(file: Path) -> Report | None:
    """The last report of the job; None if it has not begun."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Ended(**said) if "reason" in said else Step(**said)
