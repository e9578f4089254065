"""What other batches would cost: the table of choices beside the recommended one."""

from __future__ import annotations

import math

from scalecli.plan.batch import round_batch
from scalecli.plan.document import Choice
from scalecli.plan.efficiency import LandscapeEfficiency
from scalecli.plan.evidence import Evidence
from scalecli.plan.landscape import retuned_rate
from scalecli.plan.loss import loss_gain_per_compute
from scalecli.plan.memory import MemoryPlan
from scalecli.plan.notes import Notes
from scalecli.plan.objectives import Pace
from scalecli.plan.target import Target

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SECONDS_PER_DAY = 86_400
# Of the tokens a second of the batch that is run: what counts as keeping the devices busy.
BUSY = 0.95


def tradeoff(run: int, known: Evidence, pace: Pace | None) -> list[Choice]:
    """What a quarter to eight times the batch that is run would cost for the loss that it reaches."""
    batches = dict.fromkeys(_near(run, factor, known.target) for factor in FACTORS)
    return [_choice(batch, run, known, pace) for batch in batches]


def _near(run: int, factor: float, target: Target) -> int:
    return run if factor == 1 else round_batch(run * factor, target) * target.sequence_length


def _choice(batch_tokens: int, run: int, known: Evidence, pace: Pace | None) -> Choice:
    efficiency, target = known.efficiency, known.target
    extra = None if efficiency is None else efficiency.extra_tokens(batch_tokens)
    at_run = None if efficiency is None else efficiency.extra_tokens(run)
    more = 1.0 if extra is None or at_run is None else (1 + extra) / (1 + at_run)
    steps = math.ceil(more * target.tokens / batch_tokens)
    seconds = None if pace is None else pace(batch_tokens)
    excess = compute = None
    if isinstance(efficiency, LandscapeEfficiency):
        excess = efficiency.excess_loss(batch_tokens)
        compute = excess / loss_gain_per_compute(efficiency.loss, target)  # dL / |dL / d ln C|
    return Choice(
        batch_tokens=batch_tokens,
        steps=steps,
        extra_tokens_fraction=extra,
        excess_loss=excess,
        excess_compute_fraction=compute,
        learning_rate=retuned_rate(known.fits.landscape, target, batch_tokens),
        days=None if seconds is None else steps * seconds / SECONDS_PER_DAY,
    )


def note_saturation(
    batch_tokens: int, target: Target, pace: Pace | None, layout: MemoryPlan, notes: Notes
) -> None:
    """The smallest batch, by octaves under the one that is run, that keeps the devices as busy as that one.

    Still smaller ones cost time; accumulation beyond it is justified by the loss or not at all.
    """
    if pace is None:
        return

    def speed(batch: int) -> float:
        seconds = pace(batch)
        return 0.0 if seconds is None else batch / seconds

    least = target.sequence_length * target.batch_multiple
    busy = BUSY * speed(batch_tokens)
    smallest = batch_tokens
    while smallest // 2 >= least and speed(smallest // 2) >= busy:
        smallest //= 2
    accumulated = layout.part["accumulation"]
    idle = accumulated > 1 and smallest < batch_tokens
    notes.line(
        "smallest batch at full speed", smallest, unit="tokens",
        rule=f"tokens a second within {1 - BUSY:.0%} of the batch that is run, by octaves", source="marek2025",
        warning=f"accumulating {accumulated} micro-batches buys fewer updates, not speed" if idle else None,
        no_interval="by the step-time model",
    )  # fmt: skip
