"""Two-stage landscape: recovery, what it does when an axis is missing, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from scalecli.errors import NoOptimum, NotIdentified, TooFewRuns
from scalecli.fitters.law import values, with_values
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage


def fitted(x, y):
    return with_values(LandscapeTwoStage, LandscapeTwoStage.estimate(x, y, np.ones((1, y.size)))[0])


def test_noise_free_runs_give_the_law_back(grid, quadratic, target):
    law = fitted(*grid(quadratic))
    assert law.optimal_learning_rate(**target) == pytest.approx(
        quadratic.optimal_learning_rate(**target), rel=1e-4
    )
    assert law.optimal_batch_tokens(**target) == pytest.approx(
        quadratic.optimal_batch_tokens(**target), rel=1e-4
    )
    assert values(law)[11:] == pytest.approx(values(quadratic)[11:], rel=1e-4)
    assert law.tuned_loss(**target) == pytest.approx(quadratic.tuned_loss(**target), rel=1e-4)


def test_row_order_does_not_matter(grid, quadratic):
    x, y = grid(quadratic, noise=0.003)
    order = np.random.default_rng(1).permutation(y.size)
    shuffled = fitted({name: column[order] for name, column in x.items()}, y[order])
    assert values(shuffled) == pytest.approx(values(fitted(x, y)), rel=1e-6)


def test_wild_losses_do_not_move_it(grid, quadratic, target):
    x, y = grid(quadratic, noise=0.002)
    clean = fitted(x, y).optimal_learning_rate(**target)
    chosen = np.random.default_rng(2).choice(y.size, y.size // 25, replace=False)
    y[chosen] += np.random.default_rng(3).choice([-0.8, 0.05, 3.0], chosen.size)
    assert fitted(x, y).optimal_learning_rate(**target) == pytest.approx(clean, rel=0.15)


def test_tokens_rounded_to_whole_steps_are_one_setting(grid, quadratic, target):
    x, y = grid(quadratic)
    x["tokens"] = np.ceil(x["tokens"] / x["batch_tokens"]) * x["batch_tokens"]
    assert fitted(x, y).optimal_batch_tokens(**target) == pytest.approx(
        quadratic.optimal_batch_tokens(**target), rel=0.02
    )


def test_one_batch_leaves_the_batch_open_but_not_the_rate(grid, quadratic, target):
    x, y = grid(quadratic, batches=np.zeros(1), shift=0.0)
    law = fitted(x, y)
    assert law.optimal_learning_rate(**target) == pytest.approx(
        quadratic.optimal_learning_rate(**target), rel=1e-3
    )
    with pytest.raises(NotIdentified, match="batch"):
        law.optimal_batch_tokens(**target)
    assert law.flat_range(**target).batch_tokens is None


def test_optimum_outside_every_grid_is_refused(grid, quadratic):
    x, y = grid(quadratic, rates=np.linspace(1.0, 4.0, 7), shift=0.1)
    with pytest.raises(NoOptimum, match=r"12 .*settings"):
        fitted(x, y)


def test_one_rate_per_setting_is_refused(grid, quadratic):
    x, y = grid(quadratic, rates=np.zeros(1), shift=0.0)
    with pytest.raises(NotIdentified, match="two learning rates"):
        fitted(x, y)


def test_four_runs_are_refused(grid, quadratic):
    x, y = grid(quadratic, sizes=(1e8,), ratios=(20,), rates=np.zeros(2), batches=np.zeros(2))
    with pytest.raises(TooFewRuns, match="there are 4"):
        fitted(x, y)


def test_one_setting_gives_its_own_optimum(grid, quadratic):
    x, y = grid(quadratic, sizes=(1e8,), ratios=(20,))
    law = fitted(x, y)
    assert law.optimal_learning_rate(1e8, 2e9) == pytest.approx(
        quadratic.optimal_learning_rate(1e8, 2e9), rel=1e-4
    )
    assert (law.lr_params, law.lr_tokens) == (0, 0)


def test_draws_spread_with_the_noise(grid, quadratic, target):
    spread = []
    for noise in (0.001, 0.004):
        x, y = grid(quadratic, noise=noise)
        weights = (
            np.random.default_rng(0).multinomial(y.size, np.full(y.size, 1 / y.size), size=100).astype(float)
        )
        bundle = with_values(LandscapeTwoStage, LandscapeTwoStage.estimate(x, y, weights))
        spread.append(np.log(bundle.optimal_learning_rate(**target)).std())
    assert 2 < spread[1] / spread[0] < 8


def test_retuning_the_rate_is_the_best_that_a_batch_allows(quadratic, target):
    batch = 4 * quadratic.optimal_batch_tokens(**target)
    rate = quadratic.optimal_learning_rate_at(**target, batch_tokens=batch)
    around = rate * np.exp(np.linspace(-0.1, 0.1, 21))
    assert quadratic.excess_loss(**target, batch_tokens=batch, learning_rate=around).argmin() == 10


def test_flat_range_ends_where_the_tolerance_is_reached(quadratic, target):
    loss, flat = quadratic.tuned_loss(**target), quadratic.flat_range(**target, tolerance=2e-3)
    best_batch = quadratic.optimal_batch_tokens(**target)
    for rate in flat.learning_rate:
        excess = quadratic.excess_loss(**target, batch_tokens=best_batch, learning_rate=rate)
        assert excess == pytest.approx(2e-3 * loss)
    for batch in flat.batch_tokens:
        rate = quadratic.optimal_learning_rate_at(**target, batch_tokens=batch)
        excess = quadratic.excess_loss(**target, batch_tokens=batch, learning_rate=rate)
        assert excess == pytest.approx(2e-3 * loss)
