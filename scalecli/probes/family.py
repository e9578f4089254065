"""The family of shapes that proxies come from.

A law over size needs sizes that differ in size alone: here width over depth, feed-forward ratio and head dimension
stay as even as small numbers let them, and a wanted size is rounded to the family, not the family to the size.
"""

from __future__ import annotations

import math

from scalecli.accounting.shape import ModelShape
from scalecli.errors import ProbeError
from scalecli.units import format_count

ASPECT = 32
"""Width over depth; loss changes by under 2 % for 10 to 300 (Kaplan et al., 2001.08361, figure 5)."""
LEAST_LAYERS = 2
SMALLEST_WIDTH = 16
HEAD_DIM = 32
FFN_MULTIPLE = 8
NEAR = 1.5
"""A size further than this factor from every member of the family has none."""


def proxy_shape(params: float, *, vocab: int) -> ModelShape:
    """The member of the family whose total parameter count is nearest to `params`.

    Raises:
        ProbeError: the vocabulary alone has more parameters, or `params` is not positive.

    >>> [(shape.width, shape.layers, shape.params) for shape in (proxy_shape(n, vocab=256) for n in (26e3, 1e6))]
    [(24, 2, 26232), (136, 4, 967368)]
    """
    if not params > 0:
        raise ProbeError(f"a model of {params:g} parameters does not exist")
    width, below = SMALLEST_WIDTH, member(SMALLEST_WIDTH, vocab)
    while below.params < params:
        width += _step(width)
        above = member(width, vocab)
        if above.params >= params:
            return below if params / below.params < above.params / params else above
        below = above
    if below.params > NEAR * params:
        raise ProbeError(
            f"the smallest proxy with a vocabulary of {vocab} has {format_count(below.params)} parameters, "
            f"not {format_count(params)}",
            hint="use a larger size or a smaller vocabulary",
        )
    return below


def member(width: int, vocab: int) -> ModelShape:
    """The family's shape of this width."""
    heads = max(1, round(width / HEAD_DIM))
    while width % heads or width // heads % 2:
        heads -= 1
    return ModelShape(
        layers=max(LEAST_LAYERS, round(width / ASPECT)),
        width=width,
        ffn=math.ceil(8 * width / 3 / FFN_MULTIPLE) * FFN_MULTIPLE,
        heads=heads,
        kv_heads=heads,
        vocab=vocab,
    )


def _step(width: int) -> int:
    """Widths stay multiples of what devices like: 8 while small, 64 from 512 on."""
    return 8 if width < 256 else 32 if width < 512 else 64
