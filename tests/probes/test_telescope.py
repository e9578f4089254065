"""Grids that shrink with width: what they cover, and that the search follows a best rate that drifts less and less."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.errors import ProbeError
from scalecli.probes.learning_rate.telescope import Grid, doubled


@given(st.floats(1e-6, 1.0), st.floats(0.5, 12), st.integers(3, 40))
def test_a_grid_spans_its_octaves_about_its_centre(centre: float, octaves: float, points: int) -> None:
    rates = Grid(centre, octaves, points).rates()
    assert len(rates) == points
    assert rates == sorted(rates)
    assert math.log2(rates[-1] / rates[0]) == pytest.approx(octaves, abs=0.02)
    assert math.sqrt(rates[0] * rates[-1]) == pytest.approx(centre, rel=0.01)


@given(st.floats(1, 12), st.integers(3, 40))
def test_each_doubling_halves_span_and_points_down_to_three(octaves: float, points: int) -> None:
    grid = Grid(1e-2, octaves, points)
    after = grid.telescoped(2e-2)
    assert after.octaves == octaves / 2
    assert after.centre == 2e-2
    assert 3 <= after.points <= max(3, points // 2 + 2)
    assert after.points % 2 == 1  # the best rate so far is tried again
    for _ in range(10):
        after = after.telescoped(1e-2)
    assert after.points == 3


def test_a_drift_that_halves_with_width_stays_inside_to_the_end() -> None:
    """The error of muP falls as 1/width: half an octave at the first doubling, then a quarter, and so on."""
    best, grid, drift = 1e-2, Grid(1.2e-2, 8.0, 9), 0.5
    for _ in range(8):
        nearest = min(grid.rates(), key=lambda rate: abs(math.log2(rate / best)))
        assert abs(math.log2(nearest / best)) <= grid.spacing
        grid, best = grid.telescoped(nearest), best * 2**drift
        drift /= 2


def test_widths_double() -> None:
    assert doubled(32, 300) == [32, 64, 128, 256]
    for wrong in ((64, 32), (0, 8)):
        with pytest.raises(ProbeError, match="double"):
            doubled(*wrong)
    with pytest.raises(ProbeError, match="no grid"):
        Grid(1e-2, 4.0, 2)
