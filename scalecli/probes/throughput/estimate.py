"""What trials at several micro-batch sizes say: the three limits of a batch. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scalecli.errors import OutOfMemory, ProbeError

PLATEAU = 0.05
"""A throughput this close to the best one counts as reached."""
MULTIPLE = 8
"""Micro-batches above this are multiples of it: matrix units like them, and a search needs few steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One micro-batch size, tried in a process of its own.

    `predicted_bytes` comes from closed forms before the trial; `peak_bytes` was measured and is None where
    the trial ran out of memory. `mfu` is the share of `matmul_flops_per_second`, what a large matrix product
    reaches on the device.
    """

    micro_batch_sequences: int
    sequence_length: int
    fits: bool
    predicted_bytes: int
    peak_bytes: int | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    matmul_flops_per_second: float | None = None
    bound: str | None = None
    """What the step waits for: compute, memory or launch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The three limits of a micro-batch, in sequences: the largest that fits (None if the largest one tried
    did), the smallest at which throughput is flat, and where tokens begin to be wasted (None if the critical
    batch is unknown).

    `best` is the micro-batch to use: flat throughput, without waste, within memory.
    """

    fits: int | None
    flat_from: int
    wasted_above: int | None
    computes_from: int | None
    """The smallest micro-batch that waits for computing: the device's own floor; None if none tried does."""
    best: int


def limits(trials: Sequence[Trial], *, critical_tokens: float | None = None) -> Limits:
    """Reads the limits off the trials.

    Raises:
        OutOfMemory: no trial fitted.
    """
    fitting = {trial.micro_batch_sequences: trial for trial in trials if trial.fits}
    if not fitting:
        smallest = min(trials, key=lambda trial: trial.micro_batch_sequences)
        raise OutOfMemory(
            f"not even {smallest.micro_batch_sequences} sequences of {smallest.sequence_length} tokens fit",
            peak_bytes=smallest.predicted_bytes,
            largest_fitting=None,
            hint="use shorter sequences or a smaller model",
        )
    speeds = {size: trial.tokens_per_second or 0.0 for size, trial in fitting.items()}
    flat = min(size for size, speed in speeds.items() if speed >= (1 - PLATEAU) * max(speeds.values()))
    any_failed = len(fitting) < len(trials)
    length = trials[0].sequence_length
    wasted = max(1, int(critical_tokens // length)) if critical_tokens is not None else None
    return Limits(
        fits=max(fitting) if any_failed else None,
        flat_from=flat,
        wasted_above=wasted,
        computes_from=min(
            (size for size, trial in fitting.items() if trial.bound == "compute"), default=None
        ),
        best=min(flat, wasted) if wasted is not None else flat,
    )


def largest_fitting(fits: Callable[[int], bool], *, guess: int, most: int) -> int | None:
    """The largest micro-batch for which `fits` holds: a multiple of 8 (or 1, 2, 4), at most `most`; None if
    none fits.

    Begins at the guess, doubles or halves until the limit is enclosed, then bisects. `fits` must not hold
    again above a size for which it does not.

    >>> largest_fitting(lambda size: size <= 100, guess=64, most=1024)
    96
    """
    if most < 1:
        raise ProbeError(f"a largest micro-batch of {most} leaves nothing to try")
    sizes = [size for size in (1, 2, 4) if size <= most] + list(range(MULTIPLE, most + 1, MULTIPLE))
    low, high = -1, len(sizes)  # sizes[low] fits, sizes[high] does not
    position = max((index for index, size in enumerate(sizes) if size <= guess), default=0)
    reach = 1
    while high - low > 1:
        if fits(sizes[position]):
            low = position
        else:
            high = position
        if low >= 0 and high < len(sizes):
            position = (low + high) // 2
        else:
            position = min(low + reach, len(sizes) - 1) if low >= 0 else max(high - reach, 0)
        reach *= 2
    return sizes[low] if low >= 0 else None
