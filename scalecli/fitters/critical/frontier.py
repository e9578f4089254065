"""Steps to a target by recipe: each one's critical batch, and how many of its tokens another recipe's are worth.

The token ratio R(B) = D_reference / D_other at equal loss tells optimizers apart where critical batches alone do not:
for Muon over AdamW it was found not to fall with the batch (Shah et al. 2025, 2505.02222, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.critical.report import critical_batches
from scalecli.fitters.critical.steps import StepsToTarget, steps_to_targets
from scalecli.fitters.fit import Fit

SOURCE = "shah2025"


def critical_batches_by(
    table: RunTable,
    by: str,
    *,
    reference: str | None = None,
    noise: Fit | None = None,
    interval: float = 0.9,
    seed: int = 0,
) -> dict[str, Any]:
    """The document of `scalecli critical-batch --by`; the reference is the first recipe unless one is named.

    Raises `DataError` for fewer than two recipes, for a reference that is none of them, and as `steps_to_targets` does.
    """
    labels = table.groups(by)
    names = list(dict.fromkeys(labels.tolist()))
    if len(names) < 2:
        raise DataError(
            f"the column {by} has one value, {names[0]}: there is nothing to compare", hint="leave out --by"
        )
    against = names[0] if reference is None else reference
    if against not in names:
        raise DataError(f"no run has {by} {against!r}", hint=f"--reference {' or '.join(names)}")
    tables = {name: table.rows(labels == name) for name in names}
    measured = {name: steps_to_targets(each)[0] for name, each in tables.items()}
    return {
        "schema": "scalecli/critical-batch-by/1",
        "by": by,
        "reference": against,
        "interval": interval,
        "recipes": [
            {"recipe": name, **critical_batches(each, noise=noise, interval=interval, seed=seed)}
            for name, each in tables.items()
        ],
        "ratios": [
            {"recipe": name, **ratio}
            for name in names
            if name != against
            for ratio in _ratios(measured[against], measured[name])
        ],
        "warnings": [],
    }


def _ratios(reference: Sequence[StepsToTarget], other: Sequence[StepsToTarget]) -> Iterator[dict[str, float]]:
    """At each target and batch that both reached: tokens of the reference over those of the other."""
    theirs = {(each.params, each.target): each for each in other}
    for ours in reference:
        found = theirs.get((ours.params, ours.target))
        if found is None:
            continue
        steps = dict(zip(found.batch_tokens, found.steps, strict=True))
        for batch, needed in zip(ours.batch_tokens, ours.steps, strict=True):
            if batch in steps:
                yield {
                    "loss": ours.target,
                    "batch_tokens": float(batch),
                    "token_ratio": float(needed / steps[batch]),
                }
