"""The child process that trains, as the machine it runs on sees it: the same command line under every engine."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

from scalecli.probes.config import ProbeConfig

Sharding = Literal["ddp", "zero3"]
"""How a probe on several devices lies on them: a whole copy on each, or in shards."""
SILENCE_SECONDS = 600.0
"""A child that reports nothing for this long hangs: it reports every few training steps."""


@dataclass(frozen=True, slots=True)
class Step:
    """`step` of `steps` of the run that the child is training at the moment."""

    run_id: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The child is done with a unit: `reason` is empty, or says why it did not come to its end.

    `unwritable` means that the records could not be written; then `reason` is the system's word for that.
    """

    reason: str = ""
    unwritable: bool = False


Report = Step | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where a child runs: its device, its threads, and what it is to see of the machine.

    With `devices` above 1 the probe is spread over so many by torchrun, a process each.
    """

    device: str
    threads: int = 1
    devices: int = 1
    sharding: Sharding = "ddp"
    visible_devices: str | None = None

    def command(self) -> list[str]:
        child = ["-m", "scalecli.probes.child", self.device, str(self.threads), self.sharding]
        if self.devices == 1:
            return [sys.executable, *child]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.devices)]
        return [sys.executable, *torchrun, *child]

    def environment(self) -> dict[str, str]:
        own = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self.visible_devices is not None:
            own["CUDA_VISIBLE_DEVICES"] = self.visible_devices
        return {**os.environ, **own}


class ChildProcess:
    """One process of `scalecli.probes.child`; its standard error is kept for the reason it died."""

    def __init__(self, slot: Slot) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._process = subprocess.Popen(
            slot.command(),
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

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def train(
        self, configs: Sequence[ProbeConfig], file: Path, *, timeout: float | None, corpus: Path | None = None
    ) -> Iterator[Report]:
        """Trains the runs as one unit, their records appended to `file`; the last report is an `Ended`.

        `timeout` is what each of the runs may take [s]. `corpus` is a saved corpus to use in place of what the
        configurations name.
        """
        assert self._process.stdin is not None
        task = {
            "file": str(file),
            "configs": [asdict(config) for config in configs],
            "corpus": str(corpus) if corpus else None,
        }
        try:
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            yield Ended(self._death())
            return
        allowed = timeout * len(configs) if timeout else math.inf
        deadline = time.monotonic() + allowed
        while True:
            patience = min(SILENCE_SECONDS, deadline - time.monotonic())
            try:
                line = self._lines.get(timeout=max(0.0, patience))
            except queue.Empty:
                limit = f"took longer than {timeout:g} s" if patience < SILENCE_SECONDS else "hangs"
                yield Ended(f"{limit}: killed")
                return
            if line is None:
                yield Ended(self._death())
                return
            match json.loads(line):
                case {"event": "ready"}:  # importing torch is not the run's time
                    deadline = time.monotonic() + allowed
                case {"event": "step", "run_id": run_id, "step": step, "steps": steps}:
                    yield Step(run_id, step, steps)
                case {"event": "ended", "reason": reason, "unwritable": unwritable}:
                    yield Ended(reason, unwritable)
                    return

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
        if code == -signal.SIGKILL:
            return f"killed by signal {-code}, as the system does when its memory runs out"
        if code < 0:
            return f"killed by signal {-code}"
        return f"ended with exit code {code}: {words[-1] if words else 'no last words'}"
