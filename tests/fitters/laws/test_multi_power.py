"""Loss curves under nine learning-rate schedules: the published test errors, and our own fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scalecli.data.catalogue import published_law
from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.laws.multi_power import MultiPower

Public = Callable[[str], pd.DataFrame]
FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")
PUBLISHED = {
    size: MultiPower(**published_law(f"multi-power-{size.lower()}").values) for size in ("25M", "100M")
}


def _columns(curve: pd.DataFrame) -> dict[str, np.ndarray]:
    return {"steps": curve.step.to_numpy(float), "learning_rate": curve.lr.to_numpy(float)}


def _test_errors(law: MultiPower, curves: pd.DataFrame) -> tuple[float, float]:
    """Mean over the six held-out schedules of R^2 and of the mean absolute error [nats/token]."""
    scores = []
    for schedule, curve in curves.groupby("schedule"):
        if schedule in FITTED:
            continue
        error = curve.loss.to_numpy() - law.predict(_columns(curve))
        spread = curve.loss.to_numpy() - curve.loss.mean()
        scores.append((1 - (error**2).sum() / (spread**2).sum(), np.abs(error).mean()))
    assert len(scores) == 6
    r_squared, error = np.mean(scores, axis=0)
    return float(r_squared), float(error)


@pytest.mark.parametrize(
    ("size", "r_squared", "error"), [("25M", 0.9988, 0.00376), ("100M", 0.9983, 0.00435)]
)
def test_published_constants_give_the_published_test_errors(
    public: Public, size: str, r_squared: float, error: float
) -> None:
    curves = public("lr_schedule_curves/curves.csv").query("model_size == @size")
    found = _test_errors(PUBLISHED[size], curves)
    assert found[0] == pytest.approx(r_squared, abs=3e-4)
    assert found[1] == pytest.approx(error, abs=5e-4)


@pytest.mark.parametrize("size", ["25M", "100M"])
def test_our_fit_predicts_unseen_schedules_as_well(public: Public, point: Any, size: str) -> None:
    """Fitted to every fourth point of three schedules, scored on all points of the other six."""
    curves = public("lr_schedule_curves/curves.csv").query("model_size == @size")
    chosen = pd.concat([curves[curves.schedule == name].iloc[::4] for name in FITTED])
    law = point(MultiPower, _columns(chosen), chosen.loss.to_numpy(), loss="huber")
    r_squared, error = _test_errors(law, curves)
    assert r_squared > 0.998
    assert error < 0.0045


def test_trainings_are_resampled_whole_and_scored_with_their_history(public: Public) -> None:
    """Held out by scale are the ends of the three trainings, which need their beginnings to be predicted."""
    curves = public("lr_schedule_curves/curves.csv").query("model_size == '25M'")
    chosen = pd.concat([curves[curves.schedule == name].iloc[::12] for name in FITTED])
    options = FitOptions(draws=20, diagnose=False)
    fit = fit_law(MultiPower, _columns(chosen), chosen.loss.to_numpy(), options=options)
    assert fit.groups == 3
    assert fit.validation is not None
    assert fit.validation.mean_abs_log_error < 0.003


def test_the_sum_of_rates_counts_the_warm_up() -> None:
    """Without falls the law is a power of the summed rates, whatever the spacing of the rows."""
    law = MultiPower(L0=0.0, A=1.0, alpha=1.0, B=1e-12, C=1.0, beta=1.0, gamma=0.5)
    steps = np.array([100.0, 150.0, 1000.0])
    x = {"steps": steps, "learning_rate": np.full(3, 0.01)}
    np.testing.assert_allclose(1 / law.predict(x), 0.01 * (steps - 50), rtol=1e-9)


def test_a_row_that_starts_anew_is_a_training_of_its_own(public: Public) -> None:
    curves = public("lr_schedule_curves/curves.csv").query("model_size == '25M'")
    law = PUBLISHED["25M"]
    apart = [law.predict(_columns(curves[curves.schedule == name])) for name in FITTED]
    together = law.predict(_columns(pd.concat([curves[curves.schedule == name] for name in FITTED])))
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-13)


def test_coarse_rows_predict_what_fine_rows_do(public: Public) -> None:
    curve = public("lr_schedule_curves/curves.csv").query(
        "model_size == '25M' and schedule == 'cosine_72000'"
    )
    law = PUBLISHED["25M"]
    fine = law.predict(_columns(curve))[::5]
    np.testing.assert_allclose(law.predict(_columns(curve.iloc[::5])), fine, atol=3e-4)


def test_a_rate_that_ends_at_zero_has_a_prediction_and_a_gradient() -> None:
    steps = np.linspace(100, 1000, 10)
    x = {"steps": steps, "learning_rate": 3e-4 * (1000 - steps) / 900}
    law = PUBLISHED["25M"]
    assert np.isfinite(law.predict(x)).all()
    assert np.isfinite(law.gradient(x)).all()
