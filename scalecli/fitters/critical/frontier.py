"""Steps to a target by recipe: each one's critical batch, and how many of its tokens another recipe's are worth.

The token ratio R(B) = D_reference / D_other at equal loss tells optimizers apart where critical batches alone do not:
for Muon over AdamW it was found not to fall with the batch (Shah et al. 2025, 2505.02222, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from scipy.stats import t as student

from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.critical.posterior import hyperbola_posterior
from scalecli.fitters.critical.report import critical_batches
from scalecli.fitters.critical.steps import StepsToTarget, steps_to_targets
from scalecli.fitters.fit import Fit
from scalecli.fitters.laws.critical_batch import CriticalBatch

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
            for ratio in _ratios(measured[against], measured[name], interval)
        ],
        "warnings": [],
    }


def _ratios(
    reference: Sequence[StepsToTarget], other: Sequence[StepsToTarget], interval: float
) -> Iterator[dict[str, float | None]]:
    """At each target and batch that both reached: tokens of the reference over those of the other."""
    theirs = {(each.params, each.target): each for each in other}
    for ours in reference:
        found = theirs.get((ours.params, ours.target))
        if found is None:
            continue
        spread = _spread(ours, found, interval)
        steps = dict(zip(found.batch_tokens, found.steps, strict=True))
        for batch, needed in zip(ours.batch_tokens, ours.steps, strict=True):
            if batch in steps:
                ratio = float(needed / steps[batch])
                yield {
                    "loss": ours.target,
                    "batch_tokens": float(batch),
                    "token_ratio": ratio,
                    "low": None if spread is None else ratio / spread,
                    "high": None if spread is None else ratio * spread,
                }


def _spread(ours: StepsToTarget, theirs: StepsToTarget, interval: float) -> float | None:
    """The factor by which a ratio of their steps is unsure, from the scatter of both about their hyperbolas.

    None where one of them has no more batches than a hyperbola has parameters.
    """
    found = [_scatter(ours), _scatter(theirs)]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    variance, free = sum(each[0] for each in known), sum(each[1] for each in known)
    return float(np.exp(student.ppf((1 + interval) / 2, free) * np.sqrt(variance)))


def _scatter(measured: StepsToTarget) -> tuple[float, int] | None:
    """Variance of log steps about the most likely hyperbola, and its degrees of freedom."""
    free = len(measured.steps) - len(fields(CriticalBatch))
    if free < 1:
        return None
    batch = measured.batch_tokens
    law = hyperbola_posterior(batch, measured.steps, draws=1, rng=np.random.default_rng(0)).law
    off = np.log(measured.steps / law.predict({"batch_tokens": batch}))
    return float(off @ off) / free, free
