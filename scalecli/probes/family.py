"""The families of shapes that proxies come from.

A law over size needs sizes that differ in size alone: here width over depth, feed-forward ratio and head dimension
stay as even as small numbers let them, and a wanted size is rounded to the family, not the family to the size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from scalecli.accounting.shape import ModelShape
from scalecli.errors import ProbeError
from scalecli.probes.foreign import TRANSFORMERS, Shape
from scalecli.units import format_count

if TYPE_CHECKING:
    from scalecli.probes.subjects.causal_lm import TransformersFamily
    from scalecli.probes.subjects.own import OwnFamily

ASPECT = 32.0
"""Width over depth; loss changes by under 2 % for 10 to 300 (Kaplan et al., 2001.08361, figure 5)."""
LEAST_LAYERS = 2
SMALLEST_WIDTH = 16
HEAD_DIM = 32
FFN_MULTIPLE = 8
NEAR = 1.5
"""A size further than this factor from every member of the family has none."""


class Family(Protocol):
    """Shapes that differ in size alone: one for each width, larger where the width is."""

    def member(self, width: int) -> Shape:
        """The family's shape of this width."""

    def widened(self, shape: Any, width: int) -> Shape:
        """A shape of the family at another width and the same depth."""


@dataclass(frozen=True, slots=True)
class DecoderFamily:
    """Our decoder, dense or with experts; a small `aspect` (width over depth) makes it deep and narrow."""

    vocab: int
    aspect: float = ASPECT
    num_experts: int = 1
    experts_per_token: int = 1

    def member(self, width: int) -> ModelShape:
        heads = max(1, round(width / HEAD_DIM))
        while width % heads or width // heads % 2:
            heads -= 1
        return ModelShape(
            layers=layers_of(width, self.aspect),
            width=width,
            ffn=math.ceil(8 * width / 3 / FFN_MULTIPLE) * FFN_MULTIPLE,
            heads=heads,
            kv_heads=heads,
            vocab=self.vocab,
            num_experts=self.num_experts,
            experts_per_token=self.experts_per_token,
        )

    def widened(self, shape: ModelShape, width: int) -> ModelShape:
        """Head dimension and feed-forward ratio stay, too: ProbeError where the width is no multiple of the first."""
        return widened(shape, width)


def family_of(
    model: str,
    *,
    vocab: int,
    sequence_length: int,
    aspect: float = ASPECT,
    num_experts: int = 1,
    experts_per_token: int = 1,
) -> DecoderFamily | TransformersFamily | OwnFamily:
    """The family that `--model` names: `hf:CONFIG.json`, `package.module:factory`, or our decoder when empty.

    Raises:
        ProbeError: experts are wanted of a model that is not ours.
    """
    if not model:
        return DecoderFamily(vocab, aspect, num_experts, experts_per_token)
    if num_experts > 1:
        raise ProbeError(
            f"{model} has the experts it says itself", hint="experts are an option of the built-in decoder"
        )
    kind, _, path = model.partition(":")
    if kind == TRANSFORMERS:
        from scalecli.probes.subjects.causal_lm import TransformersFamily

        return TransformersFamily(path, vocab, sequence_length, aspect)
    from scalecli.probes.subjects.own import OwnFamily

    return OwnFamily(model, aspect)


def shape_of_size(family: Family, params: float) -> Shape:
    """The member of the family whose total parameter count is nearest to `params`.

    Raises:
        ProbeError: the smallest member is far larger, or `params` is not positive.
    """
    if not params > 0:
        raise ProbeError(f"a model of {params:g} parameters does not exist")
    below = family.member(SMALLEST_WIDTH)
    if below.params > NEAR * params:
        raise ProbeError(
            f"the smallest proxy{_vocabulary(below)} has {format_count(below.params)} parameters, "
            f"not {format_count(params)}",
            hint="use a larger size or a smaller vocabulary",
        )
    index = _first_index(lambda index: family.member(_width(index)).params >= params)
    if index == 0:
        return below
    below, above = family.member(_width(index - 1)), family.member(_width(index))
    return below if params / below.params < above.params / params else above


def proxy_shape(params: float, *, vocab: int) -> ModelShape:
    """The decoder of the usual family that is nearest to `params`.

    >>> [(shape.width, shape.layers, shape.params) for shape in (proxy_shape(n, vocab=256) for n in (26e3, 1e6))]
    [(24, 2, 26232), (136, 4, 967368)]
    """
    shape = shape_of_size(DecoderFamily(vocab), params)
    assert isinstance(shape, ModelShape)
    return shape


def member(width: int, vocab: int) -> ModelShape:
    """The usual decoder of this width."""
    return DecoderFamily(vocab).member(width)


def widened(shape: ModelShape, width: int) -> ModelShape:
    """The same decoder at another width: depth, head dimension and feed-forward ratio stay.

    Raises:
        ProbeError: the width is no multiple of the head dimension.
    """
    if width % shape.head_dim:
        raise ProbeError(
            f"width {width} is no multiple of the head dimension {shape.head_dim}", hint="use multiples of it"
        )
    heads = width // shape.head_dim
    grouped = max(1, heads * shape.kv_heads // shape.heads)
    ffn = round(shape.ffn * width / shape.width)
    return replace(shape, width=width, heads=heads, kv_heads=grouped, ffn=ffn)


def layers_of(width: int, aspect: float) -> int:
    """Layers that keep width over depth near `aspect`."""
    return max(LEAST_LAYERS, round(width / aspect))


def _first_index(holds: Callable[[int], bool]) -> int:
    """The first index at which a condition holds that goes on to hold: doubling, then halving."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2 if high > 1 else -1  # does not hold at low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _width(index: int) -> int:
    return next(islice(_widths(), index, None))


def _widths() -> Iterator[int]:
    """Widths stay multiples of what devices like: 8 while small, 64 from 512 on."""
    width = SMALLEST_WIDTH
    while True:
        yield width
        width += 8 if width < 256 else 32 if width < 512 else 64


def _vocabulary(shape: Shape) -> str:
    return f" with a vocabulary of {shape.vocab}" if shape.vocab else ""
