"""How far batch size and learning rate may be off before the loss notices."""

from __future__ import annotations

from dataclasses import dataclass

from scalecli.fitters.law import Array

FLAT = 1e-3
"""Within this share of the loss two settings count as equally good: seeds of one run differ by about as much."""


@dataclass(frozen=True, slots=True)
class FlatRange:
    """Lower and upper ends between which the loss stays within a tolerance of its optimum.

    `batch_tokens` [tokens] is with the learning rate re-tuned for each batch, or None where the runs did
    not vary the batch; `learning_rate` is at the optimal batch. Each end is a number, or (draws, 1) for a
    bundle.
    """

    batch_tokens: tuple[Array, Array] | None
    learning_rate: tuple[Array, Array]
