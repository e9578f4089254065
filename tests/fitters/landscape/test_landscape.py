"""Joint landscape: recovery inside and outside its family, missing axes, queries, and draws."""

from __future__ import annotations

import numpy as np
import pytest

from scalecli.errors import NoOptimum, NotIdentified
from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.landscape.exponentials import around
from scalecli.fitters.landscape.grid import Grid, Optimum
from scalecli.fitters.landscape.judged import judge
from scalecli.fitters.landscape.settings import group_settings
from scalecli.fitters.law import names, values, with_values
from scalecli.fitters.laws.landscape import Landscape
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage
from scalecli.fitters.resample import Clusters

SHAPE = ["curvature_lr", "curvature_cross", "curvature_batch", "saturation", "asymmetry"]
SMALL = {"sizes": (6e7, 1.2e8, 2.5e8), "rates": np.linspace(-2, 2, 7), "batches": np.linspace(-2, 2, 5)}


@pytest.fixture
def basin(quadratic) -> Landscape:
    shared = dict(zip(names(type(quadratic)), values(quadratic), strict=True))
    return Landscape(**shared, saturation=0.15, asymmetry=0.9)


def fitted(x, y):
    return with_values(Landscape, Landscape.estimate(x, y, np.ones((1, y.size)))[0])


def test_noise_free_runs_of_the_family_give_the_law_back(grid, basin, target):
    law = fitted(*grid(basin))
    assert [getattr(law, name) for name in SHAPE] == pytest.approx(
        [getattr(basin, name) for name in SHAPE], rel=0.02
    )
    assert law.optimal_learning_rate(**target) == pytest.approx(
        basin.optimal_learning_rate(**target), rel=0.02
    )
    assert law.optimal_batch_tokens(**target) == pytest.approx(basin.optimal_batch_tokens(**target), rel=0.02)
    assert law.tuned_loss(**target) == pytest.approx(basin.tuned_loss(**target), rel=1e-3)


class Rotated:
    """Linear-exponential in axes rotated against rate and batch: no member of either fitted form."""

    def __init__(self, basin: Landscape) -> None:
        self.basin = basin

    def optimal_learning_rate(self, params, tokens):
        return self.basin.optimal_learning_rate(params, tokens)

    def optimal_batch_tokens(self, params, tokens):
        return self.basin.optimal_batch_tokens(params, tokens)

    def excess(self, params, tokens, batch_tokens, learning_rate):
        u = np.log(learning_rate / self.optimal_learning_rate(params, tokens))
        v = np.log(batch_tokens / self.optimal_batch_tokens(params, tokens))
        along, across = 0.9 * u - 0.44 * v, 0.44 * u + 0.9 * v
        return 0.03 * (np.exp(0.7 * along) - 0.7 * along - 1) / 0.49 + 0.008 * across**2

    def predict(self, x):
        return self.basin.tuned_loss(x["params"], x["tokens"]) + self.excess(**x)


def test_outside_the_family_the_recommendation_costs_next_to_nothing(grid, basin, target):
    world = Rotated(basin)
    x, y = grid(world, noise=0.002, seed=4)
    law = fitted(x, y)
    excess = world.excess(
        **target,
        batch_tokens=law.optimal_batch_tokens(**target),
        learning_rate=law.optimal_learning_rate(**target),
    )
    assert excess / basin.tuned_loss(**target) < 5e-4


def test_one_batch_leaves_the_batch_open_but_not_the_rate(grid, basin):
    x, y = grid(basin, batches=np.zeros(1), shift=0.0)
    law = fitted(x, y)
    assert law.optimal_learning_rate(1e8, 2e9) == pytest.approx(
        basin.optimal_learning_rate(1e8, 2e9), rel=0.05
    )
    for question in (law.optimal_batch_tokens, lambda n, t: law.optimal_learning_rate_at(n, t, 1e5)):
        with pytest.raises(NotIdentified, match="batch"):
            question(1e8, 2e9)
    assert law.flat_range(1e8, 2e9).batch_tokens is None


def test_batches_all_on_one_side_leave_the_batch_open_and_say_so(grid, basin):
    x, y = grid(basin, batches=np.linspace(1.5, 3.5, 5), shift=0.2)
    with pytest.raises(NotIdentified, match="one side"):
        fitted(x, y).optimal_batch_tokens(1e8, 2e9)
    codes = {notice.code: notice.message for notice in Landscape.notices(x, y)}
    assert "lowest batch" in codes["W-EDGE-BATCH"]
    assert "12 of 12" in codes["W-EDGE-BATCH"]


def test_rates_all_on_one_side_are_refused(grid, basin):
    x, y = grid(basin, rates=np.linspace(-4.5, -1.5, 7), shift=0.1)
    with pytest.raises(NoOptimum, match="learning rate"):
        fitted(x, y)


def test_two_sizes_of_ratio_one_and_a_quarter_are_fitted(grid, basin):
    x, y = grid(basin, sizes=(2e8, 2.5e8), noise=0.001)
    at = (2.2e8, 4.4e9)
    assert fitted(x, y).optimal_learning_rate(*at) == pytest.approx(basin.optimal_learning_rate(*at), rel=0.1)
    assert "W-TWO-LEVELS" in {notice.code for notice in Landscape.notices(x, y)}


def test_fixed_tokens_per_parameter_answer_along_their_line(grid, basin):
    x, y = grid(basin, ratios=(20,), noise=0.001)
    at = (2e9, 4e10)
    assert fitted(x, y).optimal_learning_rate(*at) == pytest.approx(
        basin.optimal_learning_rate(*at), rel=0.25
    )
    assert "W-TIED-INPUTS" in {notice.code for notice in Landscape.notices(x, y)}


def test_retuned_rate_is_the_best_for_its_batch(basin, target):
    for factor in (0.1, 0.5, 3.0, 12.0):
        batch = factor * basin.optimal_batch_tokens(**target)
        rate = basin.optimal_learning_rate_at(**target, batch_tokens=batch)
        around = rate * np.exp(np.linspace(-1, 1, 201))
        excess = basin.excess_loss(**target, batch_tokens=batch, learning_rate=around)
        assert excess.argmin() == 100


def test_flat_range_ends_where_the_tolerance_is_reached(basin, target):
    flat, nats = basin.flat_range(**target, tolerance=1e-3), 1e-3 * basin.tuned_loss(**target)
    best = basin.optimal_batch_tokens(**target)
    for rate in flat.learning_rate:
        assert basin.excess_loss(**target, batch_tokens=best, learning_rate=rate) == pytest.approx(nats)
    for batch in flat.batch_tokens:
        rate = basin.optimal_learning_rate_at(**target, batch_tokens=batch)
        assert basin.excess_loss(**target, batch_tokens=batch, learning_rate=rate) == pytest.approx(nats)
    low, high = np.log(flat.learning_rate / basin.optimal_learning_rate(**target))
    assert -low > high, "high rates are the steep side"


def test_flat_rates_of_another_batch_lie_about_the_rate_that_is_best_there(basin, target):
    batch, nats = 4 * basin.optimal_batch_tokens(**target), 1e-3 * basin.tuned_loss(**target)
    best = basin.optimal_learning_rate_at(**target, batch_tokens=batch)
    floor = basin.excess_loss(**target, batch_tokens=batch, learning_rate=best)
    low, high = basin.flat_rates_at(**target, batch_tokens=batch)
    assert low < best < high
    for rate in (low, high):
        excess = basin.excess_loss(**target, batch_tokens=batch, learning_rate=rate)
        assert excess - floor == pytest.approx(nats)


def test_exponentials_have_their_optimum_where_they_say():
    optimum = Optimum(rate=np.array([[0.3, -0.5, 0.2]]), batch=np.array([[-0.2, 0.1, 0.5]]))
    form = around(optimum, np.array([[0.03, -0.01, 0.02]]), reach=0.8, turn=0.4)
    rate, batch = optimum.rate[0] @ [1, 0.7, -0.4], optimum.batch[0] @ [1, 0.7, -0.4]
    steps = np.linspace(-0.05, 0.05, 11)
    r, b = (axis.ravel() for axis in np.meshgrid(rate + steps, batch + steps))
    height, _ = form.height(Grid(np.full(121, 0.7), np.full(121, -0.4), b, r, {}))
    assert height[0].argmin() == 60
    assert form.optimum().rate == pytest.approx(optimum.rate)


def test_exponentials_without_an_optimum_have_none():
    optimum = Optimum(rate=np.zeros((1, 3)), batch=np.zeros((1, 3)))
    form = around(optimum, np.array([[0.03, 0.0, 0.02]]), reach=0.8, turn=0.0)
    falling = type(form)(
        **{f: getattr(form, f) - 5.0 * f.startswith("rate") for f in form.__dataclass_fields__}
    )
    assert np.isnan(falling.optimum().rate).all()


def test_draws_spread_with_the_noise(grid, basin, target):
    spread = []
    for noise in (0.001, 0.005):
        x, y = grid(basin, noise=noise, **SMALL)
        settings = Clusters.of(Landscape.clusters(x), y.size)
        assert settings.count == 9
        counts = settings.counts(40, np.random.default_rng(0))[:, settings.label]
        drawn = Landscape.draws(x, y, np.ones(y.size), counts, np.random.default_rng(0))
        rates = with_values(Landscape, drawn).optimal_learning_rate(**target)
        assert rates.min() < fitted(x, y).optimal_learning_rate(**target) < rates.max()
        spread.append(np.log(rates).std())
    assert spread[1] > 2 * spread[0]


def test_a_fit_resamples_settings_whatever_it_is_told(grid, quadratic):
    x, y = grid(quadratic, noise=0.002, **SMALL)
    fit = fit_law(
        LandscapeTwoStage, x, y, groups=np.arange(y.size), options=FitOptions(draws=20, diagnose=False)
    )
    assert fit.groups == 9


def test_noise_alone_is_no_landscape(grid, basin):
    x, y = grid(basin, **SMALL)
    noise = 3.0 + 0.02 * np.random.default_rng(3).standard_normal(y.size)
    with pytest.raises(NotIdentified, match="more than its noise"):
        fitted(x, noise)


def test_a_recommendation_is_judged_by_a_surface_and_fails_outside_what_was_tried(grid, basin):
    x, y = grid(basin, noise=0.001, sizes=(1e8,), ratios=(20, 80))
    settings = group_settings(x, y)

    def off(rate: float, batch: float):
        def ask(params, tokens):
            best_batch = float(basin.optimal_batch_tokens(params, tokens))
            return best_batch * batch, float(basin.optimal_learning_rate(params, tokens)) * rate

        return [each.excess for each in judge(settings, ask)]

    assert max(off(1.0, 1.0)) < 5e-4
    truth = basin.excess(np.log(2.0), np.log(0.5)) / basin.tuned_loss(1e8, 2e9)
    assert off(2.0, 0.5)[0] == pytest.approx(float(truth), rel=0.15)
    assert off(1.0, 100.0) == [np.inf, np.inf]
    assert off(float("nan"), 1.0) == [np.inf, np.inf]


def spread_at(x, y, params, tokens):
    fit = fit_law(Landscape, x, y, options=FitOptions(draws=100, diagnose=False))
    low, high = np.nanquantile(np.log(fit.bundle().optimal_batch_tokens(params, tokens)), [0.05, 0.95])
    return high - low


def test_along_an_axis_that_was_not_varied_the_optimum_is_open(grid, basin):
    x, y = grid(basin, noise=0.001, sizes=(1e8,), ratios=(10, 30, 100, 300))
    here, elsewhere = spread_at(x, y, 1e8, 3e9), spread_at(x, y, 1e10, 3e9)
    assert here < 0.2
    assert elsewhere > 1.0, "two decades away, with exponents between -0.7 and 0.7"


def test_too_few_settings_for_a_resample_have_their_runs_resampled(grid, basin):
    spread = [spread_at(*grid(basin, noise=n, sizes=(1e8,), ratios=(20,)), 1e8, 2e9) for n in (0.001, 0.004)]
    assert 0.005 < 2 * spread[0] < spread[1]
