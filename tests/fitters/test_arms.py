"""Arms with exponents in common: what a joint fit recovers and single fits do not, and what cannot be shared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scalecli.data.tables import RunTable
from scalecli.errors import DataError, TooFewRuns
from scalecli.fitters.arms import fit_arms, joint_law
from scalecli.fitters.compare.report import compare_fits
from scalecli.fitters.fit import FitOptions
from scalecli.fitters.law import values
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.envelope import Envelope
from scalecli.fitters.laws.kaplan import Kaplan

PLAIN = Chinchilla(E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37)
BETTER = replace(PLAIN, A=400.0, B=1700.0)
QUICK = FitOptions(draws=100)


def table(laws: dict[str, Any], *, noise: float = 0.002, sizes: int = 6) -> RunTable:
    size, ratio = (axis.ravel() for axis in np.meshgrid(np.geomspace(2e7, 1e9, sizes), [5.0, 20.0, 80.0]))
    random = np.random.default_rng(1)
    frames = []
    for arm, law in laws.items():
        x = {"params": size, "tokens": size * ratio}
        loss = law.predict(x) * np.exp(noise * random.standard_normal(len(size)))
        frames.append(pd.DataFrame({**x, "loss": loss, "optimizer": arm}))
    frame = pd.concat(frames, ignore_index=True)
    return RunTable(frame, np.arange(len(frame)), len(frame), (), "test", "0")


def test_exact_arms_are_recovered() -> None:
    found = fit_arms(
        table({"adamw": PLAIN, "muon": BETTER}, noise=0.0), Chinchilla, "optimizer", options=QUICK
    )
    assert found.shared == ("alpha", "beta")
    for arm, truth in (("adamw", PLAIN), ("muon", BETTER)):
        np.testing.assert_allclose(values(found.fits[arm].law), values(truth), rtol=1e-4)


def test_shared_exponents_are_surer_than_those_of_single_arms() -> None:
    found = fit_arms(table({"adamw": PLAIN, "muon": BETTER}), Chinchilla, "optimizer", options=QUICK)
    one, other = found.fits["adamw"], found.fits["muon"]
    assert one.law.alpha == other.law.alpha
    np.testing.assert_array_equal(one.draws[:, 3:], other.draws[:, 3:])
    assert one.query(lambda law: law.alpha).low <= PLAIN.alpha <= one.query(lambda law: law.alpha).high
    assert found.alone["adamw"]["alpha"] != found.alone["muon"]["alpha"]
    assert found.p_value is not None
    assert found.p_value > 0.05
    # one multiplier for all computes, and no crossing by chance
    comparison = compare_fits(one, other)
    assert comparison["shared_by_construction"] == ["alpha", "beta"]
    assert comparison["crossovers"] == []


def test_arms_whose_exponents_differ_are_told() -> None:
    steep = replace(PLAIN, A=900.0, B=5000.0, alpha=0.42, beta=0.45)
    found = fit_arms(table({"a": PLAIN, "b": steep}, noise=0.001), Chinchilla, "optimizer", options=QUICK)
    assert "W-EXPONENTS-DIFFER" in {notice.code for notice in found.notices()}


def test_laws_that_are_no_sum_of_powers_share_too() -> None:
    one = Kaplan(N_c=8.8e13, D_c=5.4e13, alpha_N=0.076, alpha_D=0.095)
    other = replace(one, N_c=1.2e14)
    found = fit_arms(table({"a": one, "b": other}, noise=0.0), Kaplan, "optimizer", options=QUICK)
    np.testing.assert_allclose(values(found.fits["b"].law), values(other), rtol=1e-3)


def test_slopes_of_a_joint_law() -> None:
    law = joint_law(Chinchilla, 2, ["alpha", "beta"])
    point = law(alpha=0.35, beta=0.37, E__0=1.8, A__0=480.0, B__0=2100.0, E__1=1.7, A__1=400.0, B__1=1900.0)
    x = {"params": np.array([1e8, 3e8]), "tokens": np.array([2e9, 9e9])}
    x |= {"arm_0": np.array([1.0, 0.0]), "arm_1": np.array([0.0, 1.0])}
    for place, value in enumerate(values(point)):
        moved = [values(point).copy() for _ in range(2)]
        moved[0][place], moved[1][place] = value * (1 - 1e-6), value * (1 + 1e-6)
        low, high = (law(**dict(zip(law.__slots__, at, strict=True))).predict(x) for at in moved)
        np.testing.assert_allclose(
            point.gradient(x)[:, place], (high - low) / (2e-6 * value), rtol=1e-5, atol=1e-12
        )


@pytest.mark.parametrize(
    ("law", "shared", "message"),
    [
        (Envelope, None, "is a procedure"),
        (Chinchilla, ["gamma"], "no parameter gamma"),
        (Chinchilla, ["E"], "not scales"),
    ],
)
def test_what_cannot_be_shared_is_refused(law: Any, shared: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_arms(table({"a": PLAIN, "b": BETTER}), law, "optimizer", shared=shared, options=QUICK)


def test_a_column_of_one_kind_has_no_arms() -> None:
    with pytest.raises(DataError, match="has 1 kinds"):
        fit_arms(table({"a": PLAIN}), Chinchilla, "optimizer", options=QUICK)


def test_an_arm_with_too_few_runs_is_named() -> None:
    full = table({"a": PLAIN, "b": BETTER})
    few = full.only((full.frame["optimizer"] == "a").to_numpy() | (np.arange(len(full)) < 20), "test")
    with pytest.raises(TooFewRuns, match="arm b has 2 usable runs"):
        fit_arms(few, Chinchilla, "optimizer", options=QUICK)
