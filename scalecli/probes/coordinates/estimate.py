"""The verdict of a coordinate check. Pure arithmetic.

Under the maximal-update parametrisation every activation, and its change by training, keeps its size as width
grows (Yang et al. 2022, 2203.03466, appendix D.1): the slope of ln(size) over ln(width) is zero. A size that
grows blows up in a wider model at the same rate; one that shrinks stops to learn there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalecli.errors import ProbeError
from scalecli.probes.columns import Row

SLOPE_TOLERANCE = 0.25
"""Largest slope that counts as none: finite widths and few seeds leave slopes of about 0.1
(docs/benchmarks.md).
"""


@dataclass(frozen=True, slots=True)
class Slope:
    """How a quantity's size changes with width: size ~ width^slope; `part` is "activation" or "update"."""

    name: str
    part: str
    slope: float

    @property
    def flat(self) -> bool:
        return abs(self.slope) <= SLOPE_TOLERANCE


@dataclass(frozen=True, slots=True)
class Verdict:
    """`transfers` says whether a rate tuned at the narrowest width can be used at the widest."""

    transfers: bool
    widths: tuple[int, ...]
    slopes: tuple[Slope, ...]

    @property
    def worst(self) -> Slope:
        return max(self.slopes, key=lambda slope: abs(slope.slope))

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        span = f"from width {self.widths[0]} to {self.widths[-1]}"
        if self.transfers:
            return f"every size stays within width^{SLOPE_TOLERANCE:g} {span}: rates transfer"
        way = "grows" if self.worst.slope > 0 else "shrinks"
        worst = f"the {self.worst.part} of {self.worst.name} {way} as width^{self.worst.slope:.2f}"
        return f"{worst} {span}: rates do not transfer"


def verdict(rows: Sequence[Row]) -> Verdict:
    """Slopes at the last measured step, from the rows of kind `coordinates`.

    Raises:
        ProbeError: there are fewer than three widths, or a size is not finite (training diverged).
    """
    seen = [row for row in rows if row["kind"] == "coordinates"]
    last = max((int(row["step"] or 0) for row in seen), default=0)
    sizes: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in seen:
        if row["step"] == last:
            for part in ("activation", "update"):
                size = row[part]
                if size is None or not float(size) > 0:
                    raise ProbeError(
                        f"{row['name']} at width {row['width']} has no finite {part} after {last} steps",
                        hint="use a smaller learning rate",
                    )
                sizes[str(row["name"]), part][int(row["width"] or 0)] = float(size)
    widths = tuple(sorted({width for each in sizes.values() for width in each}))
    if len(widths) < 3:
        raise ProbeError(f"{len(widths)} widths show no slope", hint="give at least three, such as 32,64,128")
    slopes = tuple(Slope(name, part, _slope(each)) for (name, part), each in sizes.items())
    return Verdict(all(slope.flat for slope in slopes), widths, slopes)


def _slope(sizes: dict[int, float]) -> float:
    """Least squares in logarithms."""
    x = np.log(list(sizes))
    y = np.array([math.log(size) for size in sizes.values()])
    return float(np.polyfit(x, y, 1)[0])
