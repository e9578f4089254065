"""What a number format does to the values of one tensor: which it cannot hold, and how far off the others come out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FORMATS = {"fp16": torch.float16, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
"""The 8-bit ones as in Micikevicius et al. (2209.05433), table 1."""


@dataclass(frozen=True, slots=True)
class Cast:
    """A tensor in a format; what is too large becomes the format's largest value.

    `error` is |cast - value| / |value|, both root mean squares.
    """

    below: float
    """Share of the values other than zero that become zero."""
    above: float
    """Share of them that are larger than the format's largest."""
    error: float


def cast(values: Tensor, name: str) -> Cast:
    """A finite tensor, not all zero, in the format of this name.

    >>> cast(torch.tensor([0.0, 1.0, 2.0**-12, 480.0]), "e4m3").below, cast(torch.tensor([1.0, 896.0]), "e4m3").above
    (0.3333333333333333, 0.5)
    """
    kind = FORMATS[name]
    exact, largest = values.double(), torch.finfo(kind).max
    held = values.float().clamp(-largest, largest).to(kind).double()
    present = int(exact.count_nonzero())
    return Cast(
        below=int(((held == 0) & (exact != 0)).sum()) / present,
        above=int((exact.abs() > largest).sum()) / present,
        error=float((held - exact).norm() / exact.norm()),
    )


def scale_exponent(largest: float, name: str) -> int:
    """The largest power of two that a tensor with this largest value can be multiplied by: scaling is then exact.

    >>> scale_exponent(3.0, "e4m3")
    7
    """
    return math.floor(math.log2(torch.finfo(FORMATS[name]).max / largest))


def rounding(name: str) -> float:
    """The largest relative error of a value that the format holds in full precision.

    >>> rounding("e4m3"), rounding("e5m2")
    (0.0625, 0.125)
    """
    return torch.finfo(FORMATS[name]).eps / 2
