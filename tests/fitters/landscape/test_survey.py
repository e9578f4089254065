"""What a grid is warned about, setting by setting."""

from __future__ import annotations

import numpy as np
import pytest

from scalecli.fitters.landscape.survey import settings_notices, survey


def codes(x, y):
    return {notice.code: notice.message for notice in settings_notices(x, y)}


def test_a_good_grid_has_no_warnings(grid, quadratic):
    assert codes(*grid(quadratic, noise=0.001)) == {}


def test_reports_are_the_settings_with_their_vertices(grid, quadratic):
    reports = survey(*grid(quadratic))
    assert len(reports) == 12
    for report in reports:
        at = (report.params, report.tokens)
        assert report.runs == 63
        assert report.missing == {}
        assert report.learning_rate == pytest.approx(quadratic.optimal_learning_rate(*at), rel=1e-6)
        assert report.batch_tokens == pytest.approx(quadratic.optimal_batch_tokens(*at), rel=1e-6)
        assert report.loss == pytest.approx(quadratic.tuned_loss(*at), rel=1e-9)


@pytest.mark.parametrize(("rates", "side"), [((-4, -1), "above"), ((1, 4), "below")])
def test_the_side_on_which_runs_are_missing(grid, quadratic, rates, side):
    reports = survey(*grid(quadratic, rates=np.linspace(*rates, 7), shift=0.1))
    assert {report.missing["learning_rate"] for report in reports} == {side}


def test_runs_that_diverged_above_the_best_are_no_missing_runs(grid, quadratic):
    x, y = grid(quadratic, rates=np.linspace(-4, 1.5, 12), shift=0.1)
    high = x["learning_rate"] > 0.6 * quadratic.optimal_learning_rate(x["params"], x["tokens"])
    reports = survey(x, np.where(high, np.nan, y))
    assert all("learning_rate" not in report.missing for report in reports)
    assert sum(report.diverged for report in reports) == high.sum()


def test_a_setting_whose_runs_all_diverged_is_named(grid, quadratic):
    x, y = grid(quadratic)
    y[(x["params"] == 6e7) & (x["tokens"] == 6e8)] = np.inf
    assert "63 runs diverged in 1 of 12" in codes(x, y)["W-ALL-DIVERGED"]


def test_sequences_among_tokens_are_noticed(grid, quadratic):
    x, y = grid(quadratic)
    mixed = x | {"batch_tokens": np.where(x["params"] > 2e8, x["batch_tokens"] / 2048, x["batch_tokens"])}
    assert "W-BATCH-UNIT" in codes(mixed, y)
    assert "W-BATCH-UNIT" in codes(x | {"batch_tokens": x["batch_tokens"] / 2048}, y)


def test_axes_with_too_few_levels(grid, quadratic):
    found = codes(*grid(quadratic, sizes=(1e8,), ratios=(10, 40), batches=np.zeros(1), shift=0.0))
    assert {"W-ONE-BATCH", "W-FEW-SETTINGS", "W-ONE-LEVEL", "W-TWO-LEVELS"} <= found.keys()
    assert "params" in found["W-ONE-LEVEL"]
    assert "tokens" in found["W-TWO-LEVELS"]
