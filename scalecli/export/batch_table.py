"""The batch over training as a table of steps, which a training loop can read: CSV, one row a stage."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from scalecli.plan.document import Plan

HEADS = ("from_step", "from_token", "batch_tokens", "learning_rate_factor")


def to_batch_table(plan: Plan) -> str:
    """Where each batch [tokens] begins, and the factor of the scheduled learning rate that goes with it."""
    return "\n".join(",".join(row) for row in (HEADS, *_rows(plan))) + "\n"


def _rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    stages = plan.batch.schedule
    steps = [0]
    for stage, after in pairwise(stages):  # every stage but the last is whole steps
        steps.append(steps[-1] + (after.from_token - stage.from_token) // stage.batch_tokens)
    for step, stage in zip(steps, stages, strict=True):
        factor = f"{stage.learning_rate_factor:.6g}"
        yield str(step), str(stage.from_token), str(stage.batch_tokens), factor
