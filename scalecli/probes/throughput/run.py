"""Tries micro-batch sizes, each in a process of its own: a prediction first, then the measurement."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from scalecli.errors import ProbeError
from scalecli.probes.config import Evaluation, ProbeConfig
from scalecli.probes.engines.process import Slot
from scalecli.probes.estimate import unit_bytes
from scalecli.probes.throughput.estimate import Trial, largest_fitting

RESERVE_BYTES = 512 * 2**20
"""Kept free: later peaks, fragmentation and other processes grow with the device, not with the batch."""
TRIAL_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where trials run. `limit_bytes` is what one may take; None: whatever the device gives."""

    device: str
    threads: int = 1
    limit_bytes: int | None = None

    @classmethod
    def of(cls, device: str, *, threads: int = 1, reserve_bytes: int = RESERVE_BYTES) -> Place:
        """All free memory of the device but a reserve in bytes."""
        from scalecli.probes.device import free_bytes, resolve_device

        place = resolve_device(device)
        free = free_bytes(place)
        if free <= reserve_bytes:
            raise ProbeError(
                f"{free} bytes are free on {place}, the reserve is {reserve_bytes}", hint="lower the reserve"
            )
        return cls(device=str(place), threads=threads, limit_bytes=free - reserve_bytes)


def run(config: ProbeConfig, sizes: Sequence[int], place: Place) -> Iterator[Trial]:
    """One trial for each micro-batch size, smallest first; ends with the first that does not fit."""
    for size in sorted(set(sizes)):
        found = try_size(config, size, place)
        yield found
        if not found.fits:
            return


def search(config: ProbeConfig, place: Place, *, most: int) -> Iterator[Trial]:
    """Looks for the largest micro-batch that fits, beginning where the closed forms put it; yields its
    trials.
    """
    trials: list[Trial] = []

    def fits(size: int) -> bool:
        trials.append(try_size(config, size, place))
        return trials[-1].fits

    largest_fitting(fits, guess=predicted_largest(config, place, most=most), most=most)
    yield from trials


def predicted_largest(config: ProbeConfig, place: Place, *, most: int) -> int:
    """The largest micro-batch by closed form, without training anything."""
    if place.limit_bytes is None:
        return most
    limit = place.limit_bytes
    return largest_fitting(lambda size: _predicted(config, size) <= limit, guess=most, most=most) or 1


def try_size(config: ProbeConfig, size: int, place: Place) -> Trial:
    """Trains a few steps at this micro-batch size in a child.

    Raises:
        ProbeError: the child failed for another reason than memory.
    """
    tried = replace(config, batch_sequences=size, evaluation=Evaluation(sequences=2))
    task = {"config": asdict(tried), **asdict(place)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "scalecli.probes.throughput.child"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
            env=Slot(device=place.device, threads=place.threads).environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProbeError(
            f"{size} sequences took longer than {TRIAL_SECONDS:g} s", hint="try smaller sizes"
        ) from error
    failed = Trial(
        micro_batch_sequences=size,
        sequence_length=config.sequence_length,
        fits=False,
        predicted_bytes=_predicted(config, size),
    )
    if done.returncode == -signal.SIGKILL:  # the system's out-of-memory killer
        return failed
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ProbeError(f"the trial with {size} sequences ended with code {done.returncode}: {reason}")
    return replace(failed, **json.loads(done.stdout))


def _predicted(config: ProbeConfig, size: int) -> int:
    return unit_bytes((replace(config, batch_sequences=size),))
