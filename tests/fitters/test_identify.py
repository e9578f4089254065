"""What is refused before a fit, and that nothing a table can hold ends in a traceback or a silent NaN."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalecli.errors import DataError, NotIdentified, ScalecliError, TooFewRuns
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.identify import levels
from scalecli.fitters.law import values
from scalecli.fitters.laws import law_named
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.kaplan import Kaplan
from scalecli.fitters.laws.power import Power
from scalecli.fitters.laws.power_floor import PowerFloor
from scalecli.fitters.objective import LossName

QUICK = FitOptions(draws=20)


def grid(truth: Chinchilla, sizes: int = 5, lengths: int = 5) -> tuple[dict[str, Any], Any]:
    size, data = np.meshgrid(np.geomspace(1e7, 1e9, sizes), np.geomspace(1e9, 1e11, lengths))
    x = {"params": size.ravel(), "tokens": data.ravel()}
    return x, truth.predict(x)


@pytest.mark.parametrize("law", [Chinchilla, Kaplan])
def test_trap_fixed_tokens_per_parameter(law: type[Any], truth: Chinchilla) -> None:
    size = np.geomspace(1e7, 1e9, 40)
    x = {"params": size, "tokens": 20 * size * np.exp(0.01 * np.sin(np.arange(40)))}
    with pytest.raises(NotIdentified, match="cannot tell their effects apart") as caught:
        fit_law(law, x, truth.predict(x), options=QUICK)
    assert "other ratios" in caught.value.hint


def test_a_narrow_spread_of_ratios_is_a_warning(truth: Chinchilla) -> None:
    random = np.random.default_rng(0)
    size = np.exp(random.uniform(np.log(1e7), np.log(1e10), 60))
    x = {"params": size, "tokens": size * random.uniform(15, 27, 60)}
    y = truth.predict(x) * np.exp(0.004 * random.standard_normal(60))
    fit = fit_law(Chinchilla, x, y, options=QUICK)
    assert "W-TIED-INPUTS" in {notice.code for notice in fit.warnings}


def test_a_fixed_ratio_is_fine_for_a_law_of_one_column(truth: Chinchilla) -> None:
    size = np.geomspace(1e7, 1e10, 20)
    y = truth.predict({"params": size, "tokens": 20 * size})
    assert fit_law(Power, {"params": size}, y, options=QUICK).law.alpha > 0


def test_a_column_that_hardly_varies_is_named(truth: Chinchilla) -> None:
    random = np.random.default_rng(0)
    x = {"params": np.geomspace(1e7, 1e10, 40), "tokens": 1e10 * random.uniform(0.97, 1.03, 40)}
    with pytest.raises(NotIdentified, match="tokens varies by only 1"):
        fit_law(Chinchilla, x, truth.predict(x), options=QUICK)


@pytest.mark.parametrize(("sizes", "message"), [(1, "1 value"), (2, "2 different values")])
def test_too_few_levels_of_an_axis(sizes: int, message: str, truth: Chinchilla) -> None:
    x, y = grid(truth, sizes=sizes, lengths=12)
    with pytest.raises(NotIdentified, match=f"params takes {message}"):
        fit_law(Chinchilla, x, y, options=QUICK)


def test_three_levels_are_a_warning(truth: Chinchilla) -> None:
    x, y = grid(truth, sizes=3, lengths=8)
    fit = fit_law(Chinchilla, x, y, options=QUICK)
    assert "params takes only 3 different values" in " ".join(notice.message for notice in fit.warnings)


def test_levels_on_dense_columns() -> None:
    assert levels(np.linspace(1.0, 2.0, 10_000)) >= 4
    assert levels(np.full(50, 3.0)) == 1


def test_three_runs(truth: Chinchilla) -> None:
    x, y = grid(truth, sizes=3, lengths=1)
    with pytest.raises(TooFewRuns, match="5 free parameters; got 3 usable runs, need at least 6"):
        fit_law(Chinchilla, x, y, options=QUICK)


def test_duplicated_runs_do_not_count_as_more(truth: Chinchilla) -> None:
    x, y = grid(truth, sizes=2, lengths=2)
    x = {name: np.tile(column, 10) for name, column in x.items()}
    with pytest.raises(NotIdentified, match="only 4 different points"):
        fit_law(Chinchilla, x, np.tile(y, 10), options=QUICK)


def test_duplicated_runs_of_a_good_design_give_the_same_fit(runs: Any) -> None:
    x, y, _ = runs
    once = fit_law(Chinchilla, x, y, options=FitOptions(draws=0))
    twice = fit_law(
        Chinchilla, {k: np.tile(v, 2) for k, v in x.items()}, np.tile(y, 2), options=FitOptions(draws=0)
    )
    np.testing.assert_allclose(values(twice.law), values(once.law), rtol=1e-4)
    assert twice.objective["value"] == pytest.approx(2 * once.objective["value"], rel=1e-9)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, 1e200])
@pytest.mark.parametrize("column", ["loss", "params"])
def test_impossible_values_name_column_and_row(bad: float, column: str, truth: Chinchilla) -> None:
    x, y = grid(truth)
    (y if column == "loss" else x[column])[7] = bad
    with pytest.raises(DataError, match=rf"{column} is .* in row 8 "):
        fit_law(Chinchilla, x, y, options=QUICK)


def test_missing_columns_are_named(truth: Chinchilla) -> None:
    x, y = grid(truth)
    with pytest.raises(DataError, match="tokens is missing; there is params"):
        fit_law(Chinchilla, {"params": x["params"]}, y, options=QUICK)


def test_huge_and_tiny_units_give_the_same_exponents(truth: Chinchilla) -> None:
    x, y = grid(truth)
    tiny = fit_law(PowerFloor, {"params": x["params"] * 1e-60}, y[:], options=QUICK)
    huge = fit_law(PowerFloor, {"params": x["params"] * 1e60}, y[:], options=QUICK)
    assert pytest.approx(huge.law.E, rel=1e-4) == tiny.law.E


def test_options_are_checked(truth: Chinchilla) -> None:
    x, y = grid(truth)
    for options in (
        FitOptions(loss="squared"),
        FitOptions(delta=0.0),
        FitOptions(interval=1.0),
        FitOptions(draws=-1),
        FitOptions(pins={"gamma": 1.0}),
        FitOptions(pins={"alpha": -3.0}),
    ):
        with pytest.raises(DataError):
            fit_law(Chinchilla, x, y, options=options)


magnitudes = st.one_of(
    st.floats(1e6, 1e12),
    st.sampled_from([1e7, 1e8, 1e9, 0.0, 1.0, -1.0]),
    st.floats(1e-90, 1e90),
)
losses = st.one_of(st.floats(1.5, 6.0), st.sampled_from([3.0, 3.0, 0.0, 1e-30, 1e30]))


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, dict[str, Any], Any, Any]:
    """Tables as users have them at their worst: few rows, repeats, constants, ties, wild magnitudes."""
    name = draw(st.sampled_from(["chinchilla", "chinchilla-tied", "power", "power-floor", "gadre"]))
    rows = draw(st.integers(1, 14))
    column = st.one_of(
        st.lists(magnitudes, min_size=rows, max_size=rows), magnitudes.map(lambda value: [value] * rows)
    )
    x = {name: np.array(draw(column)) for name in law_named(name).inputs}
    y = np.array(draw(st.lists(losses, min_size=rows, max_size=rows)))
    groups = draw(st.none() | st.lists(st.integers(0, 3), min_size=rows, max_size=rows).map(np.array))
    return name, x, y, groups


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(tables(), st.sampled_from(list(LossName)), st.sampled_from([0, 7]))
def test_fuzz_ends_in_a_fit_or_a_typed_error(table: Any, loss: str, draws: int) -> None:
    name, x, y, groups = table
    try:
        fit = fit_law(law_named(name), x, y, groups=groups, options=FitOptions(draws=draws, loss=loss))
    except ScalecliError:
        return
    text = json.dumps(fit.document(draws=True), allow_nan=False)
    assert np.isfinite(values(fit.law)).all()
    assert np.isfinite(fit.predict(x).value).all()
    assert Fit.from_document(json.loads(text)).document() == fit.document()
