"""How many probes to put on one device: tried, with so many processes at a time, for memory and for speed.

Each is a process of its own, `python -m scalecli.probes.engines.share`. It reads its task as a line of JSON, trains a
few steps of the largest unit, whose memory the allocator keeps, and says that it is ready. At the next line it trains
the typical unit for some seconds beside the others and says how that went; it ends when its input does, so that all see
the memory of all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.process import Slot
from scalecli.probes.units import Unit, lengths

if TYPE_CHECKING:
    from scalecli.probes.train.trainer import Trainer

WORTH = 1.1
"""Twice the processes have to train so many times as fast together: less is noise, and memory is never free."""
MOST = 16
TRIAL_SECONDS = 4.0
WARM_UP_STEPS = 8
"""Enough for a step to be recorded, where steps are."""
RESERVE_BYTES = 512 * 2**20
"""Has to stay free beside all processes: evaluations, and what others do with the device."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What so many processes did together: steps a second, and bytes they left free at their peak."""

    processes: int
    steps_per_second: float
    free_bytes: int


def measured_share(units: Sequence[Unit], device: str, *, threads: int = 1) -> int:
    """How many of these units the device trains at a time with the most steps a second and memory to spare.

    Raises:
        ProbeError: the device does not exist.
    """
    from scalecli.probes.device import resolve_device

    slot = Slot(device=str(resolve_device(device)), threads=threads)
    side_by_side = [lengths(unit)[0] for unit in units]
    by_size = sorted(side_by_side, key=lambda copies: sum(each.flops_exact / each.steps for each in copies))
    task = {
        "large": [asdict(config) for config in by_size[-1]],
        "typical": [asdict(config) for config in by_size[len(by_size) // 2]],
        "device": slot.device,
        "threads": threads,
        "seconds": TRIAL_SECONDS,
    }
    return best_share(_trials(task, slot))


def best_share(trials: Iterator[Trial]) -> int:
    """The last number of processes, each twice the one before, that was worth its doubling; at least one.

    >>> best_share(iter([Trial(1, 10.0, 2**34), Trial(2, 19.0, 2**34), Trial(4, 20.0, 2**34)]))
    2
    """
    best = next(trials, None)
    for trial in trials:
        if best is None or trial.free_bytes < RESERVE_BYTES:
            break
        if trial.steps_per_second < WORTH * best.steps_per_second:
            break
        best = trial
    return best.processes if best else 1


def _trials(task: dict[str, Any], slot: Slot) -> Iterator[Trial]:
    """One after the other with twice the processes, until they do not fit."""
    processes = 1
    while processes <= MOST:
        found = _tried(task, slot, processes)
        if found is None:
            return
        yield found
        processes *= 2


def _tried(task: dict[str, Any], slot: Slot, processes: int) -> Trial | None:
    """None when one of the processes died: of memory, most likely."""
    with ExitStack() as running:
        children = [running.enter_context(_started(slot)) for _ in range(processes)]
        try:
            _tell(children, json.dumps(task))
            _hear(children)
            _tell(children, "go")
            said = [json.loads(line) for line in _hear(children)]
        except (BrokenPipeError, json.JSONDecodeError):
            return None
    together = sum(each["steps_per_second"] for each in said)
    return Trial(processes, together, min(each["free_bytes"] for each in said))


@contextmanager
def _started(slot: Slot) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "scalecli.probes.engines.share"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
        env=slot.environment(),
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _tell(children: Sequence[subprocess.Popen[str]], line: str) -> None:
    for child in children:
        assert child.stdin is not None
        child.stdin.write(line + "\n")


def _hear(children: Sequence[subprocess.Popen[str]]) -> list[str]:
    """A line of each; empty from one that died."""
    return [child.stdout.readline() for child in children if child.stdout is not None]


def main() -> None:
    from scalecli.probes.device import cpu_settings, free_bytes, resolve_device
    from scalecli.probes.throughput.child import random_corpus
    from scalecli.probes.train.acceleration import Acceleration
    from scalecli.probes.train.run import WINDOW_STEPS
    from scalecli.probes.train.trainer import Trainer

    task = json.loads(sys.stdin.readline())
    device = resolve_device(task["device"])
    with cpu_settings(task["threads"]):
        for name in ("large", "typical"):
            copies = [ProbeConfig.from_dict(config) for config in task[name]]
            how = Acceleration.of(copies, device, 1)
            trainer = Trainer(copies, random_corpus(copies[0]), device=device, acceleration=how)
            _steps(trainer, WARM_UP_STEPS)
        _say("ready")
        sys.stdin.readline()
        steps, begun = 0, time.monotonic()
        while time.monotonic() < begun + task["seconds"]:
            steps += _steps(trainer, WINDOW_STEPS)
    speed = steps / (time.monotonic() - begun)
    _say(json.dumps({"steps_per_second": speed, "free_bytes": free_bytes(device)}))
    sys.stdin.read()


def _steps(trainer: Trainer, count: int) -> int:
    """Trains so many steps, and waits for the device at the end as training does."""
    for _ in range(count):
        losses = trainer.advance(1.0)
    losses.tolist()
    return count


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
