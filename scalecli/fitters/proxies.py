"""Runs too small to say anything about large ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.fitters.identify import Notice

SOURCE = "deshpande2023"

LEAST_PARAMS = 1.25e6
"""Below this size pre-training of language models shows no benefit: Deshpande et al. 2023 (arXiv 2305.17266)."""

LEAST_FLOPS = 2.2e15
"""Below this compute the loss leaves the power law: the same."""


def small_proxies(table: RunTable) -> Iterator[Notice]:
    """A warning when runs are below the sizes at which a power law was seen to hold for language models."""
    with np.errstate(over="ignore"):
        table = table.with_derived(["flops"])
    known = table.domain
    for name, least in (("params", LEAST_PARAMS), ("flops", LEAST_FLOPS)):
        if name in known and known[name][0] < least:
            below = int((table.columns([name])[name] < least).sum())
            yield Notice(
                "W-SMALL-PROXIES",
                f"{below} of {len(table)} runs have fewer than {least:.3g} {name}, below which the loss of language "
                f"models left the power law ({SOURCE}): --min-{name} {least:.3g} leaves them out",
            )
            return
