"""What other batches would cost: the table of choices beside the recommended one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scalecli.plan.batch import round_batch
from scalecli.plan.document import Choice
from scalecli.plan.efficiency import LandscapeEfficiency
from scalecli.plan.evidence import Evidence
from scalecli.plan.landscape import retuned_rate
from scalecli.plan.loss import loss_gain_per_compute
from scalecli.plan.notes import Notes
from scalecli.plan.objectives import Pace

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SECONDS_PER_DAY = 86_400
# Of the fastest batch's tokens a second: what counts as keeping the devices busy.
BUSY = 0.95


def tradeoff(best: float, known: Evidence, pace: Pace | None) -> list[Choice]:
    """What a quarter to eight times the batch would cost for the loss that `best` reaches at the target's tokens."""
    target = known.target
    rounded = (round_batch(best * factor, target) * target.sequence_length for factor in FACTORS)
    batches = dict.fromkeys(rounded)
    return [_choice(batch, best, known, pace) for batch in batches]


def _choice(batch_tokens: int, best: float, known: Evidence, pace: Pace | None) -> Choice:
    efficiency, target = known.efficiency, known.target
    extra = None if efficiency is None else efficiency.extra_tokens(batch_tokens)
    at_best = None if efficiency is None else efficiency.extra_tokens(best)
    more = 1.0 if extra is None or at_best is None else (1 + extra) / (1 + at_best)
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


def note_saturation(rows: Sequence[Choice], notes: Notes) -> None:
    """The smallest batch of the trade-off that keeps the devices busy: smaller ones only cost time."""
    speeds = {row.batch_tokens: row.steps * row.batch_tokens / row.days for row in rows if row.days}
    if not speeds:
        return
    fastest = max(speeds.values())
    notes.line(
        "smallest batch at full speed", min(b for b, speed in speeds.items() if speed >= BUSY * fastest),
        unit="tokens", rule=f"tokens a second within {1 - BUSY:.0%} of the fastest batch below", source="marek2025",
    )  # fmt: skip
