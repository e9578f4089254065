"""Columns that follow exactly from others, and counts that stand in for others. Each use is noted: none is silent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalecli.accounting.flops import FLOPS_PER_WEIGHT_TRAINING

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Derivation:
    """`name` = `formula` of the columns `needs`, in their order."""

    name: str
    needs: tuple[str, ...]
    formula: str
    compute: Callable[..., Array]


DERIVATIONS = (
    Derivation(
        "flops",
        ("params", "tokens"),
        "6 x params x tokens, attention not counted",
        lambda params, tokens: FLOPS_PER_WEIGHT_TRAINING * params * tokens,
    ),
    Derivation(
        "batch_tokens",
        ("batch_sequences", "sequence_length"),
        "batch_sequences x sequence_length",
        np.multiply,
    ),
    Derivation(
        "batch_sequences", ("batch_tokens", "sequence_length"), "batch_tokens / sequence_length", np.divide
    ),
    Derivation("tokens", ("steps", "batch_tokens"), "steps x batch_tokens", np.multiply),
    Derivation("steps", ("tokens", "batch_tokens"), "tokens / batch_tokens", np.divide),
    Derivation("params", ("params_non_embedding",), "its weights without embeddings are counted", np.array),
    Derivation("params", ("params_active",), "its active weights are counted", np.array),
)

COUNTS = ("params_non_embedding", "params_active")
"""What may be read as `params`: other counts of the same thing, in which a law's N then is."""


def counted_as(steps: Collection[Derivation], mapping: Mapping[str, str]) -> str | None:
    """Which other count `params` holds, from how it was derived or what it was mapped from; None for all weights."""
    sources = [step.needs[0] for step in steps if step.name == "params"] or [mapping.get("params", "")]
    return sources[0] if sources[0] in COUNTS else None


def derivations_for(wanted: Collection[str], present: Collection[str]) -> list[Derivation]:
    """The derivations that supply the wanted columns that are missing, in the order to apply them.

    >>> [step.name for step in derivations_for(["tokens"], ["steps", "batch_sequences", "sequence_length"])]
    ['batch_tokens', 'tokens']
    """
    have, plan = set(present), []
    for name in wanted:
        chain = _chain(name, frozenset(have), frozenset())
        plan += chain or []
        have |= {step.name for step in chain or []}
    return plan


def _chain(name: str, present: frozenset[str], pending: frozenset[str]) -> list[Derivation] | None:
    """The first way to `name`; None when there is none. `pending` are the columns being derived already."""
    if name in present:
        return []
    if name in pending:
        return None
    for derivation in DERIVATIONS:
        if derivation.name == name:
            chain: list[Derivation] = []
            for need in derivation.needs:
                part = _chain(need, present | {step.name for step in chain}, pending | {name})
                if part is None:
                    break
                chain += part
            else:
                return [*chain, derivation]
    return None
