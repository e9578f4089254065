"""Curves that bend: translation losses over the training set's size, extrapolated to the last point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scalecli.fitters.laws import law_named
from scalecli.fitters.laws.broken_power import BrokenPower

Public = Callable[[str], pd.DataFrame]
CURVES = ["6 Enc, 6 Dec", "28 Enc, 6 Dec", "6 Enc, 28 Dec", "Dec-only", "TEnc-LSTM"]


def _miss(name: str, curve: pd.DataFrame, point: Any) -> float:
    """Relative error at the largest size of a fit to all smaller ones."""
    size, loss = curve.training_examples.to_numpy(float), curve.loss.to_numpy()
    fitted = curve.in_fit_split.to_numpy() == 1
    law = point(law_named(name), {"tokens": size[fitted]}, loss[fitted])
    return float(law.predict({"tokens": size[~fitted]})[0] / loss[~fitted][0] - 1)


@pytest.mark.parametrize("architecture", CURVES)
def test_the_last_point_is_predicted_better_than_by_a_plain_power_law(
    public: Public, point: Any, architecture: str
) -> None:
    curve = public("nmt_data_curves/curves.csv").query("architecture == @architecture")
    plain, bent = (_miss(name, curve, point) for name in ("power-floor:tokens", "broken-power"))
    assert -0.065 < plain < -0.016
    assert abs(bent) < abs(plain)
    assert abs(bent) < 0.02


def test_all_curves_of_the_set_are_tested(public: Public) -> None:
    assert set(public("nmt_data_curves/curves.csv").architecture) == set(CURVES)


def test_slopes_on_both_sides_of_the_break() -> None:
    law = BrokenPower(a=1e-9, b=1e3, c0=0.2, c1=0.3, d=1e9, f=0.2)
    for low, slope in ((1e4, -0.2), (1e14, -0.5)):
        ends = law.predict({"tokens": np.array([low, 10 * low])})
        assert np.log10(ends[1] / ends[0]) == pytest.approx(slope, abs=1e-3)


def test_it_can_be_had_over_another_column() -> None:
    law = law_named("broken-power:flops")(a=1.0, b=1e3, c0=0.2, c1=0.3, d=1e18, f=0.2)
    same = BrokenPower(a=1.0, b=1e3, c0=0.2, c1=0.3, d=1e18, f=0.2)
    flops = np.geomspace(1e16, 1e20, 5)
    np.testing.assert_array_equal(law.predict({"flops": flops}), same.predict({"tokens": flops}))
