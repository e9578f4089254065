"""Two fits with a known crossover, a known multiplier and known exponents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scalecli.errors import DataError
from scalecli.fitters.compare.crossover import crossovers, multipliers
from scalecli.fitters.compare.curve import Curve
from scalecli.fitters.compare.exponents import exponents_of, shared_exponents
from scalecli.fitters.compare.report import compare_fits, crossover_notice
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.law import Array
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.critical_batch_tokens import CriticalBatchTokens
from scalecli.fitters.laws.gadre import Gadre
from scalecli.fitters.laws.power import Power

BASE = Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.31)


def ladder() -> dict[str, Array]:
    size, ratio = np.meshgrid(np.geomspace(1e7, 1e9, 12), [5.0, 20.0, 80.0])
    return {"params": size.ravel(), "tokens": (size * ratio).ravel()}


def fit_of(law: Any, *, noise: float = 0.002, seed: int = 0, setup: dict[str, str] | None = None) -> Fit:
    x = ladder()
    if "flops" in law.inputs:
        x["flops"] = 6 * x["params"] * x["tokens"]
    loss = law.predict(x) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(x["params"])))
    options = FitOptions(draws=200, seed=seed, diagnose=False)
    return fit_law(type(law), x, loss, groups=x["params"], options=options, provenance={"setup": setup or {}})


@pytest.fixture(scope="module")
def base() -> Fit:
    return fit_of(BASE)


@pytest.fixture(scope="module")
def better() -> Fit:
    """The same exponents, and every reducible loss 10 % lower."""
    return fit_of(replace(BASE, A=0.9 * BASE.A, B=0.9 * BASE.B), seed=1)


@pytest.fixture(scope="module")
def steeper() -> Fit:
    """Worse at small scale and better at large: it overtakes where the curves of tuned losses meet."""
    return fit_of(replace(BASE, A=700.0, B=2200.0, alpha=0.37, beta=0.34), seed=2)


def test_power_laws_cross_where_algebra_says() -> None:
    first, second = Power(A=10.0, alpha=0.1), Power(A=40.0, alpha=0.18)
    span = (1e7, 1e10)
    fits = [fit_of(law, noise=1e-5) for law in (first, second)]
    found = crossovers(Curve(fits[0], "params", {}), Curve(fits[1], "params", {}), span, 0.9)
    assert len(found) == 1
    assert found[0].place.value == pytest.approx(4 ** (1 / 0.08), rel=1e-2)
    assert not found[0].first_wins_beyond


def test_the_crossover_is_inside_its_interval(base: Fit, steeper: Fit) -> None:
    truth = _true_crossing(BASE, replace(BASE, A=700.0, B=2200.0, alpha=0.37, beta=0.34))
    document = compare_fits(base, steeper, target=1e23)
    (crossing,) = document["crossovers"]
    assert crossing["low"] <= truth <= crossing["high"]
    assert crossing["better_above"] == "second"
    assert crossing["chance"] > 0.9


def test_a_constant_advantage_is_a_constant_multiplier(base: Fit, better: Fit) -> None:
    """With equal exponents a scale factor k of the excess is k^(1/gamma) in compute, 1/gamma = 1/alpha + 1/beta."""
    truth = 0.9 ** (1 / BASE.alpha + 1 / BASE.beta)
    places = np.geomspace(1e17, 1e20, 4)
    for ratio in multipliers(Curve(base, "flops", {}), Curve(better, "flops", {}), places, 0.98):
        assert ratio.value == pytest.approx(truth, rel=0.1)
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.low <= truth <= ratio.high


def test_a_fit_needs_one_times_its_own_compute(base: Fit) -> None:
    document = compare_fits(base, base)
    assert all(place["value"] == pytest.approx(1, rel=1e-3) for place in document["multipliers"])
    assert document["crossovers"] == []
    assert document["shared_exponents"]["p_value"] == pytest.approx(1)


def test_what_is_out_of_reach_is_null(base: Fit) -> None:
    worse = fit_of(replace(BASE, E=2.3), seed=3)
    document = compare_fits(base, worse)
    assert document["multipliers"][-1]["value"] is None
    assert document["multipliers"][-1]["missing"] > 100


def test_equal_exponents_are_not_rejected(base: Fit, better: Fit) -> None:
    shared = shared_exponents(base, better, 0.9)
    assert shared is not None
    assert shared.p_value > 0.05
    for part in shared.exponents.values():
        assert part.difference.low is not None
        assert part.difference.high is not None
        assert part.difference.low <= 0 <= part.difference.high


def test_different_exponents_are_told_apart(base: Fit) -> None:
    other = fit_of(replace(BASE, A=4000.0, alpha=0.48), seed=4)
    shared = shared_exponents(base, other, 0.9)
    assert shared is not None
    assert shared.p_value < 0.01
    assert shared.exponents["alpha"].p_value < 0.05


def test_exponents_are_those_of_columns() -> None:
    assert exponents_of(Chinchilla) == ["alpha", "beta"]


def test_a_target_beyond_the_crossover_is_a_warning(base: Fit, steeper: Fit) -> None:
    crossing = compare_fits(base, steeper)["crossovers"][0]["value"]
    end = base.domain["flops"][1]
    target = 100 * max(crossing, end)
    codes = [warning["code"] for warning in compare_fits(base, steeper, target=target)["warnings"]]
    assert ("W-BEYOND-CROSSOVER" in codes) == (crossing > end)
    small = _limited(base, crossing / 10), _limited(steeper, crossing / 10)
    notice = crossover_notice(*small, target)
    assert notice is not None
    assert notice.code == "W-BEYOND-CROSSOVER"
    assert crossover_notice(*small, crossing / 5) is None


def test_laws_without_an_optimum_of_their_own_are_searched(base: Fit) -> None:
    """Gadre's law is Chinchilla's with one exponent, over other inputs: both give the same curve."""
    tied = fit_of(replace(BASE, beta=BASE.alpha, B=2000.0), seed=5)
    x = ladder()
    loss = tied.law.predict(x)
    x["flops"] = 6 * x["params"] * x["tokens"]
    other = fit_law(Gadre, x, loss, options=FitOptions(draws=20, diagnose=False))
    places = np.geomspace(1e17, 1e20, 5)
    assert np.allclose(
        Curve(other, "flops", {}).point(places), Curve(tied, "flops", {}).point(places), rtol=2e-3
    )


def test_other_axes_need_the_other_inputs(base: Fit, better: Fit) -> None:
    with pytest.raises(DataError, match="without params"):
        compare_fits(base, better, along="tokens")
    document = compare_fits(base, better, along="tokens", at={"params": 1e8})
    assert document["range"][0] == pytest.approx(5e7)
    with pytest.raises(DataError, match="no curve along depth"):
        compare_fits(base, better, along="depth")


def test_different_quantities_are_refused(base: Fit) -> None:
    x = {"tokens": np.geomspace(1e8, 1e11, 6)}
    other = fit_law(
        CriticalBatchTokens, x, 30 * x["tokens"] ** 0.45, options=FitOptions(draws=10, diagnose=False)
    )
    with pytest.raises(DataError, match="nothing to compare"):
        compare_fits(base, other)


@pytest.mark.parametrize("column", ["loss_kind", "tokenizer"])
def test_losses_of_different_kinds_are_refused(column: str) -> None:
    fits = [fit_of(BASE, setup={column: kind}) for kind in ("one", "other")]
    with pytest.raises(DataError, match=f"the {column} of one fit is one"):
        compare_fits(*fits)


def _limited(fit: Fit, flops: float) -> Fit:
    return replace(fit, domain={**fit.domain, "flops": (fit.domain["flops"][0], flops)})


def _true_crossing(first: Chinchilla, second: Chinchilla) -> float:
    grid = np.geomspace(1e15, 1e23, 4001)
    losses = [
        law.predict({"params": law.optimal_params(grid), "tokens": law.optimal_tokens(grid)})
        for law in (first, second)
    ]
    (crossing,) = np.flatnonzero(np.diff(np.sign(losses[0] - losses[1])))
    return float(grid[crossing])
