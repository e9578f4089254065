"""From constants to trainings: known trajectories, two fits that make one law, and set-ups that contradict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.chain import chain_document, chain_of
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.law import values
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.kaplan_steps import KaplanSteps
from scalecli.fitters.laws.trajectory import Trajectory
from scalecli.fitters.runs import setup_of

TRUTH = Trajectory(A=22.0, alpha=0.076, B=75.0, beta=0.67, B_star=4e8, alpha_B=0.205)
QUICK = FitOptions(draws=100, diagnose=False)


def trainings(noise: float = 0.0) -> tuple[dict[str, Any], Any]:
    size, steps, batch = (
        axis.ravel()
        for axis in np.meshgrid(np.geomspace(3e6, 1e8, 5), np.geomspace(500, 2e4, 8), [2e4, 1e5, 5e5])
    )
    x = {"params": size, "steps": steps, "batch_tokens": batch}
    return x, TRUTH.predict(x) * np.exp(noise * np.random.default_rng(0).standard_normal(len(size)))


@pytest.fixture(scope="module")
def whole() -> Fit:
    x, loss = trainings(0.001)
    setup = {"setup": {"optimizer": "adamw", "sequence_length": 1024.0}}
    return fit_law(Trajectory, x, loss, groups=x["params"], options=QUICK, provenance=setup)


def parts(first: dict[str, Any], second: dict[str, Any]) -> list[Fit]:
    size, steps = (axis.ravel() for axis in np.meshgrid(np.geomspace(3e6, 1e8, 6), np.geomspace(500, 2e4, 8)))
    x = {"params": size, "steps": steps}
    large = KaplanSteps(A=TRUTH.A, alpha=TRUTH.alpha, B=TRUTH.B, beta=TRUTH.beta)
    loss = {"loss": np.geomspace(2.5, 5.0, 12)}
    critical = CriticalBatchLoss(B_star=TRUTH.B_star, alpha=TRUTH.alpha_B)
    return [
        fit_law(KaplanSteps, x, large.predict(x), options=QUICK, provenance={"setup": first}),
        fit_law(CriticalBatchLoss, loss, critical.predict(loss), options=QUICK, provenance={"setup": second}),
    ]


def test_the_loss_is_that_of_the_least_steps_behind_it() -> None:
    """S_min = S / (1 + B_crit(L) / B) steps at an endless batch reach the loss that S steps at B do."""
    x, loss = trainings()
    least = x["steps"] / (1 + TRUTH.critical_batch_tokens(loss) / x["batch_tokens"])
    large = TRUTH.A * x["params"] ** -TRUTH.alpha + TRUTH.B * least**-TRUTH.beta
    np.testing.assert_allclose(large, loss, rtol=1e-9)
    np.testing.assert_allclose(TRUTH.min_steps(loss, x["params"]), least, rtol=1e-6)
    np.testing.assert_allclose(
        TRUTH.steps_for_loss(loss, x["params"], x["batch_tokens"]), x["steps"], rtol=1e-6
    )


def test_all_six_constants_come_from_one_fit(whole: Fit) -> None:
    np.testing.assert_allclose(values(whole.law), values(TRUTH), rtol=0.15)


def test_a_training_is_told_from_one_fit(whole: Fit) -> None:
    chain, notices = chain_of([whole], 0.9)
    assert notices == []
    told = chain_document(chain, notices, params=1e9, batch_tokens=5e5, losses=[5.0], steps=[1e3, 1e5])
    assert told["min_loss"]["value"] == pytest.approx(TRUTH.min_loss(1e9), rel=0.02)
    (reached,) = told["losses"]
    assert reached["critical_batch_tokens"]["value"] == pytest.approx(
        TRUTH.critical_batch_tokens(5.0), rel=0.1
    )
    assert reached["S_min"]["low"] < reached["S_min"]["value"] < reached["S_min"]["high"]
    at = {"params": np.array([1e9] * 2), "batch_tokens": np.array([5e5] * 2), "steps": np.array([1e3, 1e5])}
    assert [row["loss"]["value"] for row in told["trajectory"]] == pytest.approx(TRUTH.predict(at), rel=0.02)
    assert all(constant["setup"]["optimizer"] == "adamw" for constant in told["constants"])


def test_a_loss_below_the_least_is_out_of_reach(whole: Fit) -> None:
    chain, notices = chain_of([whole], 0.9)
    told = chain_document(chain, notices, params=1e9, batch_tokens=5e5, losses=[1.0])
    assert told["losses"][0]["S_min"] is None


def test_two_fits_make_the_same_law() -> None:
    setup = {"optimizer": "adamw"}
    chain, notices = chain_of(parts(setup, setup), 0.9)
    assert notices == []
    np.testing.assert_allclose(values(chain.law), values(TRUTH), rtol=1e-3)
    assert {name: fit.law.name for name, fit in chain.origins.items()} == {
        **dict.fromkeys(["A", "alpha", "B", "beta"], "kaplan-steps"),
        **dict.fromkeys(["B_star", "alpha_B"], "critical-batch-loss"),
    }


def test_constants_of_other_set_ups_are_refused_unless_asked_for() -> None:
    fits = parts({"optimizer": "adamw", "tokenizer": "bytes"}, {"optimizer": "sgd", "tokenizer": "bytes"})
    with pytest.raises(DataError, match=r"different set-ups \(optimizer adamw and sgd"):
        chain_of(fits, 0.9)
    _, notices = chain_of(fits, 0.9, across_setups=True)
    assert [notice.code for notice in notices] == ["W-SETUP-MISMATCH"]


def test_runs_that_do_not_say_their_set_up_are_a_warning() -> None:
    _, notices = chain_of(parts({"optimizer": "adamw"}, {}), 0.9)
    assert [notice.code for notice in notices] == ["W-SETUP-UNKNOWN"]


def test_fits_that_make_no_training_are_refused(whole: Fit) -> None:
    with pytest.raises(DataError, match="do not make a training"):
        chain_of([whole, whole], 0.9)


def test_rate_and_batch_are_part_of_the_set_up_where_all_runs_share_them() -> None:
    frame = pd.DataFrame({"loss": [3.0, 2.0], "learning_rate": [1e-3, 1e-3], "batch_tokens": [1e5, 2e5]})
    assert setup_of(RunTable(frame, np.arange(2), 2, (), "test", "0")) == {"learning_rate": 1e-3}
