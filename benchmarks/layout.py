"""The step-time model against published utilisations, and the layout search against the clock.

    python benchmarks/layout.py                 the table: model, its range, what was printed, by how much it is off
    python benchmarks/layout.py speed           the search for 70B on 512 devices, in fresh interpreters

One number for each architecture was set from one published step (three on Frontier): the rows marked "set".
All others are checks.
"""

from __future__ import annotations

import math
import resource
import statistics
import subprocess
import sys

from scalecli.data.catalogue import accelerator
from scalecli.data.catalogue.utilisations import PublishedStep, published_steps
from scalecli.plan.steptime import step_time

FULL_RECOMPUTATION = 4 / 3  # hardware FLOPs over model FLOPs
SPEED_RUNS = 5


def predicted(step: PublishedStep) -> tuple[float, float, float]:
    """Utilisation by the published count: the model's value and the ends of its range."""
    device = accelerator(step.accelerator)
    found = step_time(
        step.shape, step.recipe, step.layout, device,
        micro_batch_sequences=step.micro_batch_sequences, sequence_length=step.sequence_length,
    )  # fmt: skip
    factor = FULL_RECOMPUTATION if step.counted == "hardware" else 1.0
    value = factor * found.utilisation(step.attention)
    low, high = (value * end / found.mfu for end in found.mfu_range())
    return value, low, high


def table() -> None:
    print("| | model | its range | published | off by | |\n|---|---|---|---|---|---|")
    errors: dict[str, list[float]] = {"calibration": [], "check": []}
    inside = []
    for step in published_steps():
        value, low, high = predicted(step)
        error = math.log(value / step.utilisation)
        errors[step.role].append(error)
        if step.role == "check":
            inside.append(low <= step.utilisation <= high)
        note = "set" if step.role == "calibration" else "hardware FLOPs" if step.counted == "hardware" else ""
        print(
            f"| {step.name} ({step.source}) | {value:.3f} | {low:.3f} to {high:.3f} | {step.utilisation:.3f} "
            f"| {value / step.utilisation - 1:+.0%} | {note} |"
        )
    for role, found in errors.items():
        sizes = sorted(abs(error) for error in found)
        print(
            f"\n{role}: {len(found)} steps, median error {statistics.median(sizes):.1%}, 90 % within "
            f"{sizes[math.ceil(0.9 * len(sizes)) - 1]:.1%}, mean {statistics.mean(found):+.1%}"
        )
    print(f"range holds {sum(inside)} of {len(inside)} checks")


def speed() -> None:
    command = (
        "memory --params 70B --accelerator h100-80g --count 512 --batch 1024 --sequence-length 4096 --search"
    )
    for _ in range(SPEED_RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "scalecli", *command.split(), "--json"], check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.2f} CPU s")


if __name__ == "__main__":
    speed() if sys.argv[1:] == ["speed"] else table()
