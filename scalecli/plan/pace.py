"""Seconds of a step on the target's devices, for any batch: a layout is searched for each."""

from __future__ import annotations

from functools import cache

from scalecli.accounting.memory import Recipe
from scalecli.data.catalogue import Accelerator
from scalecli.errors import PlanError
from scalecli.plan.batch import round_batch
from scalecli.plan.memory import plan_memory
from scalecli.plan.objectives import Pace
from scalecli.plan.target import Target


def pace_on(device: Accelerator | None, target: Target, recipe: Recipe) -> Pace | None:
    """None without devices; a batch that no layout can run has no pace."""
    if device is None:
        return None

    @cache
    def seconds(sequences: int) -> float | None:
        try:
            found = plan_memory(
                target.shape,
                sequence_length=target.sequence_length,
                batch_sequences=sequences,
                accelerator=device,
                count=target.count,
                recipe=recipe,
                search=True,
            )
        except PlanError:
            return None
        return None if found.chosen.step is None else found.chosen.step.seconds

    def pace(batch_tokens: float) -> float | None:
        """A batch between those that can be run takes its share of the nearest one's time."""
        sequences = round_batch(batch_tokens, target)
        found = seconds(sequences)
        return None if found is None else found * batch_tokens / (sequences * target.sequence_length)

    return pace
