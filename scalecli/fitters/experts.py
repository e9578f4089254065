"""Ê, the effective number of experts: few and many experts help less than their number says (Clark et al. 2022).

1/Ê = 1/(E - 1 + 1/(1/start - 1/most)) + 1/most: Ê is `start` for one expert and `most` for infinitely many.
"""

from __future__ import annotations

import numpy as np

from scalecli.fitters.law import Array


def effective_experts(experts: Array | float, start: Array | float, most: Array | float) -> Array:
    """Ê of that many experts."""
    offset = 1 / (1 / start - 1 / most)
    return np.asarray(1 / (1 / (experts - 1 + offset) + 1 / most))


def log_slopes(experts: Array, start: Array | float, most: Array | float) -> tuple[Array, Array]:
    """Derivatives of ln Ê by `start` and by `most`."""
    gap = 1 / start - 1 / most
    effective = effective_experts(experts, start, most)
    by_offset = effective / (experts - 1 + 1 / gap) ** 2
    by_start = by_offset / (gap * start) ** 2
    return by_start, effective / most**2 - by_offset / (gap * most) ** 2
