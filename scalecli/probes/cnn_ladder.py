"""Ladders of convolutional networks: depth where runs are long enough to over-fit, width where they are not.

One compound rule for depth, width and resolution does not hold across regimes: Bello et al. 2021 (Revisiting ResNets),
section 5, find depth better than width at 350 epochs and width better from 10 to 100, and resolution worth less than
compound scaling gives it. Their family's depths and resolutions are in the catalogue (`resnet-rs-ladder`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scalecli.data.catalogue import published_law
from scalecli.errors import ProbeError

PAIRS, REGIME = "resnet-rs-ladder", "resnet-rs-regime"


@dataclass(frozen=True, slots=True)
class CnnRung:
    """One network of the ladder; `compute` is relative to the first, as depth x width^2 x resolution^2."""

    depth: int
    width: float
    """Multiple of the usual channels."""
    resolution: int
    """Pixels on a side of the training images."""
    compute: float


def scaled_by(epochs: float) -> Literal["depth", "width"]:
    """What to scale for runs of so many epochs."""
    return "depth" if epochs > published_law(REGIME).values["width_until_epochs"] else "width"


def cnn_ladder(epochs: float, rungs: int) -> list[CnnRung]:
    """The smallest `rungs` of the family for runs of so many epochs. Raises `ProbeError` for too many or too few."""
    pairs = _pairs()
    if not 2 <= rungs <= len(pairs):
        raise ProbeError(f"{rungs} rungs: the family has {len(pairs)}, and a ladder at least 2")
    first, pixels = pairs[0]
    ladder = []
    for depth, resolution in pairs[:rungs]:
        deep = scaled_by(epochs) == "depth"
        width = 1.0 if deep else float(np.sqrt(depth / first))  # as much compute as the depth would take
        compute = depth / first * (resolution / pixels) ** 2
        ladder.append(CnnRung(depth if deep else first, round(width, 3), resolution, compute))
    return ladder


def _pairs() -> list[tuple[int, int]]:
    """(depth, resolution) of the family, smallest first."""
    said = published_law(PAIRS).values
    return sorted((int(name.removeprefix("depth_")), int(pixels)) for name, pixels in said.items())
