"""Bytes of a contrastive loss over a batch of pairs, whole or in tiles."""

from __future__ import annotations

from scalecli.errors import PlanError

LOGIT_BYTES = 4
# Alive at once: the log-softmax of both directions, and the two gradients of one of them.
MATRICES = 4


def contrastive_bytes(pairs: int, *, tile: int | None = None) -> int:
    """Highest bytes of the loss over a batch of `pairs`: 16 B² for all similarities at once.

    In tiles of `tile` columns only one strip of similarities is alive, beside the running log-sum-exp of rows and
    columns, and backward computes each strip again (Cheng et al., 2410.17243, section 3): 16 B t + 8 B. The batch is
    then bounded by the encoders, not by the loss. Raises PlanError for sizes below 1.
    """
    if pairs < 1 or (tile is not None and tile < 1):
        raise PlanError(f"a contrastive batch of {pairs} pairs in tiles of {tile} is impossible")
    if tile is None or tile >= pairs:
        return MATRICES * LOGIT_BYTES * pairs * pairs
    return MATRICES * LOGIT_BYTES * pairs * tile + 2 * LOGIT_BYTES * pairs
