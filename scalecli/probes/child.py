"""The process that trains: `python -m scalecli.probes.child DEVICE THREADS`.

It reads one task a line from standard input, `{"file": ..., "configs": [...], "corpus": ...}`, trains the unit, appends
its records to the file, and reports progress on standard output, one JSON object a line. It starts torch once and then
takes task after task. When standard input ends the driver is gone, however it went: the process ends at once, and what
it has written stays for the next driver.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO, Any

from scalecli.errors import ScalecliError
from scalecli.probes.columns import Row, config_columns
from scalecli.probes.config import ProbeConfig

Task = dict[str, Any]


class Unwritable(Exception):
    """The system's word for why a record could not be written: no space, most of the time."""


def main(device: str, threads: int) -> None:
    # Whatever a library prints must not be taken for a report.
    reports, sys.stdout = sys.stdout, sys.stderr
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    from scalecli.probes.train import StepReport

    def on_step(report: StepReport) -> None:
        _report(reports, event="step", run_id=report.run_id, step=report.step, steps=report.steps)

    _report(reports, event="ready")
    while True:
        task = tasks.get()
        try:
            _serve(task, device, threads, on_step)
            reason = ""
        except Unwritable as error:
            reason = str(error)
        _report(reports, event="ended", reason=reason, unwritable=bool(reason))


def _serve(task: Task, device: str, threads: int, on_step: Any) -> None:
    """Trains the unit of a task; what cannot be trained gets a result that says why."""
    configs = [ProbeConfig.from_dict(each) for each in task["configs"]]
    with _opened(Path(task["file"])) as records:
        try:
            _train(configs, task["corpus"], records, device, threads, on_step)
        except ScalecliError as error:
            for config in configs:
                reason = {"status": "failed", "status_reason": error.message}
                _append(records, {"kind": "result", **config_columns(config), **reason})


def _train(
    configs: list[ProbeConfig], saved: str | None, records: IO[bytes], device: str, threads: int, on_step: Any
) -> None:
    from scalecli.data.corpus_file import read_corpus
    from scalecli.probes.corpora import corpus_of
    from scalecli.probes.train import train_together

    corpus = read_corpus(Path(saved)) if saved else corpus_of(configs[0])
    for row in train_together(configs, corpus=corpus, device=device, threads=threads, on_step=on_step):
        _append(records, row)


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
    main(sys.argv[1], int(sys.argv[2]))
