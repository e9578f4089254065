"""Runs too small to say anything about large ones: left out where the others are enough, and flagged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.fitters.identify import levels

SOURCE = "deshpande2023"

LEAST_PARAMS = 1.25e6
"""Below this size pre-training of language models shows no benefit: Deshpande et al. 2023 (arXiv 2305.17266)."""

LEAST_FLOPS = 2.2e15
"""Below this compute the loss leaves the power law: the same."""

FEWEST_LEFT = 10
FEWEST_SIZES = 4
"""Runs, and sizes, that must be left for others to be left out: a study of small models keeps them."""


def without_small_proxies(table: RunTable) -> RunTable:
    """The table without runs that are too small both in parameters and in compute, which are a counted drop.

    All of them stay where less than half of the runs, ten runs or four sizes would be left.
    """
    params, flops = _known(table, "params"), _known(table, "flops")
    if params is None or flops is None:
        return table
    large = (params >= LEAST_PARAMS) | (flops >= LEAST_FLOPS)
    enough = large.sum() >= max(FEWEST_LEFT, len(table) / 2) and levels(params[large]) >= FEWEST_SIZES
    if large.all() or not enough:
        return table
    reason = (
        f"below {LEAST_PARAMS:.3g} params and {LEAST_FLOPS:.2g} FLOPs ({SOURCE}); --min-params 0 keeps them"
    )
    return table.only(large, reason)


def small_proxies(table: RunTable) -> Iterator[Notice]:
    """A warning when runs are below the sizes at which a power law was seen to hold for language models."""
    for name, least in (("params", LEAST_PARAMS), ("flops", LEAST_FLOPS)):
        known = _known(table, name)
        below = 0 if known is None else int((known < least).sum())
        if below:
            yield Notice(
                "W-SMALL-PROXIES",
                f"{below} of {len(table)} runs have fewer than {least:.3g} {name}, below which the loss of language "
                f"models left the power law ({SOURCE}): --min-{name} {least:.3g} leaves them out",
            )
            return


def _known(table: RunTable, name: str) -> NDArray[np.float64] | None:
    with np.errstate(over="ignore"):
        return table.with_derived([name]).positive(name)
