"""The process that trains: `python -m scalecli.probes.child DEVICE THREADS SHARDING`, or one of several under torchrun.

It reads one task a line from standard input, `{"file": ..., "configs": [...], "corpus": ...}`, trains the unit, appends
its records to the file, and reports progress on standard output, one JSON object a line. It starts torch once and then
takes task after task. When standard input ends the driver is gone, however it went: the process ends at once, and what
it has written stays for the next driver. Under torchrun the first process reads, writes and reports for all.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from scalecli.errors import ScalecliError
from scalecli.probes.columns import Row, config_columns
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.process import Sharding

if TYPE_CHECKING:
    from scalecli.probes.train import StepReport
    from scalecli.probes.train.spread import Spread

Task = dict[str, Any]
DEATH_OF_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


class Unwritable(Exception):
    """The system's word for why a record could not be written: no space, most of the time."""


def main(device: str, threads: int, sharding: Sharding) -> None:
    # Whatever a library prints must not be taken for a report.
    reports, sys.stdout = sys.stdout, sys.stderr
    if "RANK" in os.environ and sys.platform == "linux":
        # torchrun starts its processes in sessions of their own, which a kill of torchrun would leave behind.
        ctypes.CDLL(None).prctl(DEATH_OF_PARENT, signal.SIGKILL)
    from scalecli.probes.train.spread import Spread

    spread = Spread.joined(device, sharding)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    if spread.rank == 0:
        threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
        _report(reports, event="ready")
    while True:
        task = spread.told(tasks.get() if spread.rank == 0 else {})
        reason = _Unit(task, device, threads, spread, reports).train()
        if spread.rank == 0:
            _report(reports, event="ended", reason=reason, unwritable=bool(reason))


class _Unit:
    """The runs of one task, and what this process does for them."""

    def __init__(self, task: Task, device: str, threads: int, spread: Spread, reports: IO[str]) -> None:
        self._configs = [ProbeConfig.from_dict(each) for each in task["configs"]]
        self._task = task
        self._device = device
        self._threads = threads
        self._spread = spread
        self._reports = reports

    def train(self) -> str:
        """Empty, or why the records could not be written."""
        try:
            with _opened(Path(self._task["file"])) as records:
                self._train(records)
        except Unwritable as error:
            return str(error)
        return ""

    def _train(self, records: IO[bytes]) -> None:
        """Trains, with a result for every run; what cannot be trained gets one that says why.

        One of several processes may fail alone, and the others would never hear of it: it says so itself, and ends.
        """
        failed = ""
        try:
            for row in self._rows():
                if row.get("status") == "out_of_memory":
                    failed = "memory ran out"
                if self._spread.rank == 0 or failed:
                    _append(records, row)
        except ScalecliError as error:
            failed = error.message
            reason = {"status": "failed", "status_reason": error.message}
            for config in self._configs:
                _append(records, {"kind": "result", **config_columns(config), **reason})
        if failed and self._spread.world > 1:
            sys.exit(f"{failed} in one of the processes")

    def _rows(self) -> Any:
        from scalecli.data.corpus_file import read_corpus
        from scalecli.probes.corpora import corpus_of
        from scalecli.probes.train import train_together

        saved = self._task["corpus"]
        return train_together(
            self._configs,
            corpus=read_corpus(Path(saved)) if saved else corpus_of(self._configs[0]),
            device=self._device,
            threads=self._threads,
            spread=self._spread,
            on_step=self._on_step if self._spread.rank == 0 else None,
        )

    def _on_step(self, report: StepReport) -> None:
        _report(self._reports, event="step", run_id=report.run_id, step=report.step, steps=report.steps)


def _opened(file: Path) -> IO[bytes]:
    """The file to append to; a line that a requeued job had left half written is ended first."""
    try:
        half = file.exists() and file.read_bytes()[-1:] not in (b"", b"\n")
        records = file.open("ab", buffering=0)
        if half:
            records.write(b"\n")
    except OSError as error:
        raise Unwritable(error.strerror) from error
    return records


def _append(records: IO[bytes], row: Row) -> None:
    """One whole line at a time: a kill between two lines loses neither."""
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    try:
        while line:
            line = line[records.write(line) :]
    except OSError as error:
        raise Unwritable(error.strerror) from error


def _report(stream: IO[str], **event: str | int) -> None:
    stream.write(json.dumps(event) + "\n")
    stream.flush()


def _listen(tasks: queue.SimpleQueue[Task]) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), cast(Sharding, sys.argv[3]))
