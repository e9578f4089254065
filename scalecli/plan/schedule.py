"""A batch that changes over training, in whole steps that the layout can run."""

from __future__ import annotations

import math

import numpy as np

from scalecli.plan.course import Course, Curve
from scalecli.plan.document import Stage
from scalecli.plan.evidence import Evidence
from scalecli.plan.notes import Notes
from scalecli.plan.rules.optimizer import SGD_LIKE

# Points of the run at which the curve is read, evenly in the logarithm of tokens, from this share of the run on.
READINGS, EARLIEST = 400, 1e-4


def plan_stages(
    known: Evidence, batch_tokens: int, unit_tokens: int, course: Course | None, notes: Notes
) -> list[Stage]:
    """One batch for the whole run, or stages that follow a course; the peak rate belongs to the last stage's batch."""
    if course is None:
        return [Stage(from_token=0, batch_tokens=batch_tokens)]
    stages = batch_schedule(round(known.target.tokens), batch_tokens, unit_tokens, course.curve)
    linear = known.optimizer in SGD_LIKE
    notes.line(
        "batch schedule", f"{len(stages)} stages from {stages[0].batch_tokens} tokens", unit="",
        rule=f"{course.rule}, in whole micro-batches and whole steps", source=course.source, warning=course.warning,
    )  # fmt: skip
    notes.line(
        "learning rate over stages", "× batch / last batch" if linear else "× √(batch / last batch)", unit="",
        rule="linear under SGD" if linear else "square root under Adam, below the critical batch",
        source="goyal2017" if linear else "malladi2022",
        warning="the fitted rate is for a constant batch: on the way it moves by this rule",
    )  # fmt: skip
    power = 1.0 if linear else 0.5
    return [
        stage.model_copy(
            update={"learning_rate_factor": (stage.batch_tokens / stages[-1].batch_tokens) ** power}
        )
        for stage in stages
    ]


def batch_schedule(tokens: int, batch_tokens: int, unit_tokens: int, curve: Curve) -> list[Stage]:
    """Stages of the batch [tokens], each a power of two of the last one's and a multiple of `unit_tokens`.

    `batch_tokens` is the batch at the end of the run, where the curve has its last value; before, it is the one
    nearest to the same ratio to the curve. Every stage but the last is whole steps, and the stages
    cover `tokens` without gap or overlap.
    """
    positions = np.geomspace(max(batch_tokens, EARLIEST * tokens), tokens, READINGS)
    end = curve(float(tokens))
    wanted = [batch_tokens * curve(float(position)) / end for position in positions]
    sizes = [_size(want, batch_tokens, unit_tokens) for want in wanted]
    stages = [Stage(from_token=0, batch_tokens=sizes[0])]
    for position, size in zip(positions, sizes, strict=True):
        if size != stages[-1].batch_tokens:
            _change(stages, float(position), size, tokens)
    return stages


def _change(stages: list[Stage], position: float, batch_tokens: int, tokens: int) -> None:
    """Take up another batch at the first whole step at or after `position`, if that is still within the run."""
    last = stages[-1]
    steps = max(0, math.ceil((position - last.from_token) / last.batch_tokens))
    start = last.from_token + steps * last.batch_tokens
    if steps == 0:  # the stage would have no length
        stages.pop()
    if start < tokens and not (stages and stages[-1].batch_tokens == batch_tokens):
        stages.append(Stage(from_token=start, batch_tokens=batch_tokens))


def steps_of(stages: list[Stage], tokens: int) -> int:
    """Optimizer steps of the whole run; the last one may be short."""
    ends = [*(stage.from_token for stage in stages[1:]), tokens]
    return sum(
        math.ceil((end - stage.from_token) / stage.batch_tokens)
        for stage, end in zip(stages, ends, strict=True)
    )


def _size(wanted: float, batch_tokens: int, unit_tokens: int) -> int:
    """The batch_tokens 2^k nearest to `wanted`, as a multiple of the unit, at least one unit."""
    octaves = round(math.log2(wanted / batch_tokens))
    return max(1, round(batch_tokens * 2.0**octaves / unit_tokens)) * unit_tokens
