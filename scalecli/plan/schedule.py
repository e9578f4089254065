"""A batch that follows the critical batch over training, in whole steps that the layout can run."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.plan.document import Stage
from scalecli.plan.evidence import Evidence
from scalecli.plan.fits import FitSet
from scalecli.plan.loss import loss_at
from scalecli.plan.notes import Notes
from scalecli.plan.target import Target

Curve = Callable[[float], float]
"""Tokens seen -> critical batch [tokens]; may fall as well as rise."""

# Points of the run at which the curve is read, evenly in the logarithm of tokens, from this share of the run on.
READINGS, EARLIEST = 400, 1e-4


def plan_stages(
    known: Evidence, batch_tokens: int, unit_tokens: int, follow_critical: bool, notes: Notes
) -> list[Stage]:
    """One batch for the whole run, or stages that follow the critical batch, where a fit knows its course."""
    constant = [Stage(from_token=0, batch_tokens=batch_tokens)]
    if not follow_critical:
        return constant
    curve = critical_curve(known.fits, known.target)
    if curve is None:
        raise PlanError(
            "the batch can only follow a critical batch whose course over training is known",
            hint="give a critical-batch-tokens fit, or critical-batch-loss with a loss law, with --fit",
        )
    stages = batch_schedule(round(known.target.tokens), batch_tokens, unit_tokens, curve)
    notes.line(
        "batch schedule", f"{len(stages)} stages from {stages[0].batch_tokens} tokens", unit="",
        rule="follows the critical batch, in whole micro-batches and whole steps", source="mccandlish2018",
        warning="fits of batch and learning rate are for a constant batch; with the batch the rate moves by a rule",
    )  # fmt: skip
    return stages


def critical_curve(fits: FitSet, target: Target) -> Curve | None:
    """The critical batch along the run, from a law over tokens or over the loss reached; None without either.

    The loss on the way is the loss law's for so many tokens: that of a run that ends there.
    """
    critical, loss = fits.critical_batch, fits.loss
    if critical is None or critical.law.name == "critical-batch":
        return None
    law = critical.law
    if "loss" not in law.inputs:
        columns = target.columns()
        return lambda tokens: _at(law, {**columns, "tokens": tokens})
    if loss is None:
        return None
    return lambda tokens: _at(law, {"loss": _loss(loss, target, tokens)})


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


def _at(law: object, columns: dict[str, float]) -> float:
    return float(law.predict({name: np.array([columns[name]]) for name in law.inputs})[0])  # type: ignore[attr-defined]


def _loss(fit: Fit, target: Target, tokens: float) -> float:
    return loss_at(fit.law, target, tokens_factor=tokens / target.tokens).item()
