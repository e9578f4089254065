"""The routed law on the runs of Clark et al. 2022."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scalecli.data.catalogue import published_law
from scalecli.fitters.laws.clark import Clark

Public = Callable[[str], pd.DataFrame]
NO_SATURATION = {"E_start": 1.0, "E_max": 1e18}


@pytest.fixture(name="last")
def _last(public: Public) -> pd.DataFrame:
    """The last evaluation of each run."""
    return public("routed_lm/curves.csv").sort_values("step").groupby("run").tail(1)


def _dense(last: pd.DataFrame) -> pd.DataFrame:
    return last.query("router_type == 'Dense' and flop_increase == 1")


def _routed(last: pd.DataFrame, router: str) -> pd.DataFrame:
    alike = "experts_per_token == 1 and routing_frequency == 0.5 and seed == 42"
    return last[last.router_type == router].query(alike)


def _columns(runs: pd.DataFrame) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {name: runs[name].to_numpy(float) for name in Clark.inputs}, runs.loss_validation.to_numpy()


@pytest.mark.parametrize("router", ["S-Base", "RL-R", "Hash"])
def test_the_routed_law_is_the_published_one(last: pd.DataFrame, point: Any, router: str) -> None:
    """Fitted without the 1.3B models of the paper, whose constants then predict these runs about as well."""
    published = Clark(**published_law(f"clark-{router.lower()}").values)
    x, loss = _columns(pd.concat([_routed(last, router), _dense(last)]))
    found = point(Clark, x, loss)
    own = np.log(found.predict(x) / loss)
    theirs = np.log(published.predict(x) / loss)
    assert own.std() < 0.006
    assert theirs.std() < 0.011
    for name in ("a", "b", "d"):
        assert getattr(found, name) == pytest.approx(getattr(published, name), rel=0.1)
    assert found.E_start == pytest.approx(published.E_start, rel=0.3)
    assert found.E_max == pytest.approx(published.E_max, rel=0.3)


def test_without_saturation_it_is_bilinear_in_the_logarithms(last: pd.DataFrame, point: Any) -> None:
    """The README of the data gives the four constants for all sizes; without the largest they move a little."""
    law = point(Clark, *_columns(_routed(last, "S-Base")), pins=NO_SATURATION)
    found = [law.a, law.b, law.c, law.d]
    np.testing.assert_allclose(found, [-0.081, -0.092, 0.0079, 1.086], rtol=0.1)


def test_routing_helps_large_models_less() -> None:
    law = Clark(**published_law("clark-s-base").values)
    gains = [law.dense_equivalent(size, 64.0) / size for size in (1e7, 1e8, 1e9)]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) > 1
    size = law.dense_equivalent(1e8, 64.0)
    dense = law.predict({"params_active": np.array([float(size)]), "num_experts": np.array([1.0])})
    routed = law.predict({"params_active": np.array([1e8]), "num_experts": np.array([64.0])})
    np.testing.assert_allclose(dense, routed)
