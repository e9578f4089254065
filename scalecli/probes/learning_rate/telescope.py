"""A learning rate carried up in width, with a grid that shrinks as the width doubles. Pure arithmetic.

Under muP the best rate stays, but for an error that shrinks with width: so each doubling is searched about the best
rate of the one before, over half its octaves and half its points. The whole search then costs a few of the last runs,
O(C log N) (Shah et al. 2025, 2505.02222, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

from scalecli.errors import ProbeError

FEWEST_POINTS = 3


@dataclass(frozen=True, slots=True)
class Grid:
    """`points` rates, evenly over `octaves` on the log axis about `centre`."""

    centre: float
    octaves: float
    points: int

    def __post_init__(self) -> None:
        if self.points < FEWEST_POINTS or not (self.octaves > 0 and self.centre > 0):
            raise ProbeError(
                f"{self.points} rates over {self.octaves:g} octaves about {self.centre:g} are no grid",
                hint=f"give at least --points {FEWEST_POINTS}",
            )

    @property
    def spacing(self) -> float:
        """Octaves between neighbours."""
        return self.octaves / (self.points - 1)

    def rates(self) -> list[float]:
        """Rising, to three digits.

        >>> Grid(1e-2, 2.0, 3).rates()
        [0.005, 0.01, 0.02]
        """
        below = self.octaves / 2
        return [
            float(f"{self.centre * 2 ** (index * self.spacing - below):.3g}") for index in range(self.points)
        ]

    def telescoped(self, best: float) -> Grid:
        """The grid for twice the width."""
        points = max(FEWEST_POINTS, (self.points + 1) // 2)
        return Grid(best, self.octaves / 2, points + 1 - points % 2)

    def moved(self, edge: float) -> Grid:
        """The same grid about its edge, where the best rate was the first or last."""
        return Grid(edge, self.octaves, self.points)


def doubled(first: int, last: int) -> list[int]:
    """Widths from the first by doubling, as far as the last.

    >>> doubled(32, 128)
    [32, 64, 128]
    """
    if not 0 < first <= last:
        raise ProbeError(f"widths from {first} to {last} do not double", hint="give --widths 32:256")
    widths = [first]
    while 2 * widths[-1] <= last:
        widths.append(2 * widths[-1])
    return widths
