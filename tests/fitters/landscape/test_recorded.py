"""The project's own grid (tests/data/cpu_landscape): what it holds, and what is recommended beyond a part of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scalecli.data.tables import RunTable, read_runs
from scalecli.fitters.landscape.grid import place
from scalecli.fitters.landscape.judged import Ask, judge
from scalecli.fitters.landscape.queries import INPUTS
from scalecli.fitters.landscape.recommend import fit_point
from scalecli.fitters.landscape.settings import Settings, group_settings
from scalecli.fitters.landscape.survey import survey
from scalecli.fitters.landscape.two_stage import two_stage
from scalecli.fitters.law import with_values
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage
from scalecli.fitters.runs import mixed_recipes, setup_of

GRID = Path(__file__).parents[2] / "data" / "cpu_landscape" / "runs.csv"

SEEDS = 0.011
"""Scatter of seeds near the best [nats/token]."""


@pytest.fixture(scope="module")
def table() -> RunTable:
    return read_runs(str(GRID), require=[*INPUTS, "loss"])


@pytest.fixture(scope="module")
def settings(table: RunTable) -> Settings:
    return group_settings(table.columns(INPUTS), table.columns(["loss"])["loss"])


def test_what_was_recorded(table: RunTable, settings: Settings) -> None:
    frame = table.frame.assign(setting=settings.label)
    points = frame.drop_duplicates(["setting", "batch_tokens", "learning_rate"]).groupby("setting").size()
    assert len(points) >= 12
    assert points.min() >= 30
    assert (frame.groupby("setting")["seed"].nunique() == 2).sum() >= 8
    assert frame["run_id"].is_unique
    for report in survey(table.columns(INPUTS), table.columns(["loss"])["loss"]):
        assert report.missing == {}
        assert report.learning_rate is not None
        assert report.batch_tokens is not None


def test_rounding_to_whole_steps_is_no_other_recipe(table: RunTable) -> None:
    assert table.frame["decay_fraction"].nunique() > 1
    assert list(mixed_recipes(table)) == []
    setup = setup_of(table)
    assert setup["decay_fraction"] == pytest.approx(0.2, rel=0.01)
    assert setup["warmup_tokens_per_param"] == pytest.approx(1.0, rel=0.01)


def joint(small: Settings) -> Ask:
    fitted = fit_point(small)

    def ask(params: float, tokens: float) -> tuple[float, float]:
        rate, batch = place(fitted.optimum(), fitted.grid, np.log([params]), np.log([tokens]))
        return float(np.exp(batch[0, 0])), float(np.exp(rate[0, 0]))

    return ask


def by_two_stages(small: Settings) -> Ask:
    law = with_values(LandscapeTwoStage, two_stage(small, np.ones((1, small.loss.size)))[0])
    return lambda params, tokens: (
        float(law.optimal_batch_tokens(params, tokens)),
        float(law.optimal_learning_rate(params, tokens)),
    )


@pytest.mark.parametrize("way", [joint, by_two_stages])
def test_recommendations_for_the_largest_settings_cost_less_than_another_seed(
    settings: Settings, way: Callable[[Settings], Ask]
) -> None:
    """The third of the settings with the most compute is held out; a recommendation outside its grid is infinite."""
    compute = settings.log_params + settings.log_tokens
    large = (compute > np.quantile(compute, 2 / 3))[settings.label]
    found = judge(settings.select(large), way(settings.select(~large)))
    assert len(found) >= 2
    excess = np.array([each.excess for each in found]) * settings.best.min()
    assert excess.mean() < SEEDS / 4
    assert excess.max() < SEEDS / 2
