"""Seconds of a step on the target's devices, for any batch: a layout is searched for each."""

from __future__ import annotations

from scalecli.plan.batch import round_batch
from scalecli.plan.objectives import Pace
from scalecli.plan.speed import Speed
from scalecli.plan.target import Target


def pace_on(speed: Speed | None, target: Target) -> Pace | None:
    """None without devices; a batch that no layout can run has no pace."""
    if speed is None:
        return None

    def pace(batch_tokens: float) -> float | None:
        """A batch between those that can be run takes its share of the nearest one's time, interruptions counted."""
        tokens_per_second = speed.tokens_per_second(target.shape, round_batch(batch_tokens, target))
        return None if tokens_per_second is None else batch_tokens / tokens_per_second

    return pace
