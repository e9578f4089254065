"""What every law must keep, run over the list of laws: derivatives, recovery, inverses, optima, names, sources."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalecli.errors import NotIdentified, TooFewRuns
from scalecli.fitters import laws
from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.law import (
    Array,
    Columns,
    EstimatedLaw,
    PowerSum,
    measured_column,
    names,
    parameters,
    required_columns,
    values,
    with_values,
)
from scalecli.fitters.laws import LAWS, law_named
from scalecli.fitters.laws.broken_power import BrokenPower
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.chinchilla_tied import ChinchillaTied
from scalecli.fitters.laws.clark import Clark
from scalecli.fitters.laws.critical_batch import CriticalBatch
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.critical_batch_params_tokens import CriticalBatchParamsTokens
from scalecli.fitters.laws.critical_batch_tokens import CriticalBatchTokens
from scalecli.fitters.laws.diloco import DiLoCo
from scalecli.fitters.laws.encoder_decoder import EncoderDecoder
from scalecli.fitters.laws.envelope import Envelope
from scalecli.fitters.laws.farseer import Farseer
from scalecli.fitters.laws.gadre import Gadre
from scalecli.fitters.laws.hestness import Hestness
from scalecli.fitters.laws.isoflop import IsoFlop
from scalecli.fitters.laws.isoflop_cubic import IsoFlopCubic
from scalecli.fitters.laws.joint_moe import JointMoe
from scalecli.fitters.laws.kaplan import Kaplan
from scalecli.fitters.laws.kaplan_steps import KaplanSteps
from scalecli.fitters.laws.landscape import Landscape
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage
from scalecli.fitters.laws.multi_power import MultiPower
from scalecli.fitters.laws.noise_scale import NoiseScale
from scalecli.fitters.laws.power import Power
from scalecli.fitters.laws.power_floor import PowerFloor
from scalecli.fitters.laws.repeated_data import RepeatedData
from scalecli.fitters.laws.surge import Surge
from scalecli.fitters.laws.three_term import ThreeTerm
from scalecli.fitters.laws.width_depth import WidthDepth
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.solver import solve
from scalecli.fitters.starts import linear_parameters

ROWS = 120
NOISE = 0.003
COLUMNS = {
    "params": (1e7, 1e10),
    "params_encoder": (1e7, 1e9),
    "params_decoder": (1e7, 1e9),
    "tokens": (1e9, 1e12),
    "steps": (1e3, 1e6),
    "batch_tokens": (1e4, 1e7),
    "flops": (1e18, 1e22),
    "loss": (2.0, 4.0),
    "width": (256.0, 8192.0),
    "depth": (4.0, 100.0),
    "learning_rate": (3e-4, 1e-2),
    "replicas": (1.0, 64.0),
}
"""Ranges that sample columns are drawn from, evenly in the logarithm, where an example does not bring its own."""


@dataclass(frozen=True)
class Example:
    """Where a law is at home: plausible parameters, and columns made from independent samples of `COLUMNS`.

    `change` edits the sampled columns where a law needs them related (unique tokens below tokens, say).
    """

    law: Any
    change: Callable[[dict[str, Array]], dict[str, Array]] = dict

    def columns(self, rows: int = ROWS) -> dict[str, Array]:
        random = np.random.default_rng(7)
        sampled = {
            name: np.exp(random.uniform(np.log(low), np.log(high), rows))
            for name, (low, high) in COLUMNS.items()
        }
        changed = self.change(sampled)
        law = type(self.law)
        return {name: changed[name] for name in dict.fromkeys((*required_columns(law), *law.inputs))}


def _loss_curves(rows: int) -> dict[str, Array]:
    """Points along three trainings: a constant rate, a cosine and a rate that falls once."""
    count = np.array([rows // 3, rows // 3, rows - 2 * (rows // 3)])
    done = np.concatenate([np.linspace(0.1, 1.0, each) for each in count])
    training = np.repeat([0, 1, 2], count)
    rates = [np.ones(rows), 0.55 + 0.45 * np.cos(np.pi * done), np.where(done > 0.5, 0.2, 1.0)]
    return {
        "steps": np.array([2e4, 2e4, 4e4])[training] * done,
        "learning_rate": 3e-4 * np.choose(training, rates),
    }


TUNED_LOSS = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1000.0, "beta": 0.35}
OPTIMUM = {"lr_scale": 30.0, "lr_params": -0.6, "lr_tokens": 0.2}
OPTIMUM |= {"batch_scale": 0.6, "batch_params": 0.05, "batch_tokens": 0.57}
CURVATURE = {"curvature_lr": 0.02, "curvature_cross": -0.008, "curvature_batch": 0.015}
BASIN = TUNED_LOSS | OPTIMUM | CURVATURE

EXAMPLES = [
    Example(BrokenPower(a=1.5, b=300.0, c0=0.3, c1=0.25, d=3e10, f=0.3)),
    Example(Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.31)),
    Example(ChinchillaTied(E=1.7, A=400.0, B=1200.0, alpha=0.33)),
    Example(
        Clark(a=-0.084, b=-0.12, c=0.01, d=1.11, E_start=2.0, E_max=400.0),
        lambda x: x | {"params_active": x["params"], "num_experts": x["width"] / 256 * np.sqrt(x["depth"])},
    ),
    Example(CriticalBatch(S_min=3000.0, B_crit=5e5)),
    Example(CriticalBatchLoss(B_star=2e8, alpha=0.21)),
    Example(CriticalBatchParamsTokens(c=10.0, a=0.1, b=0.45)),
    Example(CriticalBatchTokens(c=20.0, b=0.47)),
    Example(DiLoCo(A=19.0, alpha=0.0985, beta=0.0116)),
    Example(EncoderDecoder(L_inf=1.2, alpha=900.0, p_e=0.18, p_d=0.25)),
    Example(Envelope(a=0.1, b=0.5)),
    Example(Farseer(E=1.5, B=700.0, c=0.3, p=0.05, q=-0.1, r=0.08, gamma=0.15, beta=-0.12, alpha=0.1)),
    Example(Gadre(E=1.5, a=100.0, b=150.0, eta=0.12), lambda x: x | {"flops": 6 * x["params"] * x["tokens"]}),
    Example(Hestness(gamma=0.8, alpha=100.0, beta=0.2)),
    Example(IsoFlop(a=0.1, b=0.5)),
    Example(IsoFlopCubic(a=0.1, b=0.5)),
    Example(
        JointMoe(
            a=36.0,
            alpha=-0.19,
            delta=-0.23,
            gamma=0.01,
            b=36.0,
            beta=-0.18,
            omega=0.55,
            zeta=-0.026,
            E_start=2.0,
            E_max=290.0,
            c=1.4,
        ),
        lambda x: x | {"params_active": x["params"], "num_experts": x["width"] / 256 * np.sqrt(x["depth"])},
    ),
    Example(Kaplan(N_c=6e13, D_c=2e13, alpha_N=0.076, alpha_D=0.1)),
    Example(KaplanSteps(A=11.0, B=340.0, alpha=0.077, beta=0.76)),
    Example(Landscape(**BASIN, saturation=0.15, asymmetry=0.8)),
    Example(LandscapeTwoStage(**BASIN)),
    Example(
        MultiPower(L0=3.0, A=0.52, alpha=0.5, B=400.0, C=2.0, beta=0.6, gamma=0.6),
        lambda x: _loss_curves(len(x["loss"])),
    ),
    Example(NoiseScale(B_star=2e8, alpha=0.21)),
    Example(Power(A=12.0, alpha=0.08)),
    Example(PowerFloor(E=1.7, A=400.0, alpha=0.34)),
    Example(
        RepeatedData(E=1.9, A=500.0, B=1500.0, alpha=0.35, beta=0.35, R_data=15.0, R_params=5.0),
        lambda x: x | {"unique_tokens": x["tokens"] / x["depth"] ** 1.5},
    ),
    Example(Surge(lr_max=4e-3, B_noise=3e5)),
    Example(ThreeTerm(E=1.5, A=300.0, B=30.0, C=20.0, alpha=0.33, beta=0.4, gamma=0.3)),
    Example(
        WidthDepth(E=1.2, A=30.0, B=1.5, C=300.0, G=900.0, alpha=0.6, beta=0.7, gamma=0.33, zeta=0.31),
        lambda x: x | {"params": x["params"]},
    ),
]


@cache
def examples() -> dict[str, Example]:
    return {example.law.name: example for example in EXAMPLES}


def example_of(law: type[Any]) -> Example:
    assert law.name in examples(), f"add an example of {law.name} to EXAMPLES"
    return examples()[law.name]


every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
searched_law = pytest.mark.parametrize(
    "law", [law for law in LAWS if not isinstance(law, EstimatedLaw)], ids=lambda law: law.name
)


def test_list_is_the_folder_and_sorted() -> None:
    folder = Path(laws.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {law.__module__.rpartition(".")[2] for law in LAWS} == files
    assert len(LAWS) == len(files)
    assert [law.__name__ for law in LAWS] == sorted(law.__name__ for law in LAWS)
    assert all(law_named(law.name) is law for law in LAWS)


@every_law
def test_says_what_it_is(law: type[Any]) -> None:
    first = law.__doc__.strip().splitlines()[0]
    assert " = " in first
    assert "[" in first, "the first line gives the unit in brackets"
    for name in names(law):
        assert name in first or name in law.__doc__, f"the docstring does not have the parameter {name}"


@every_law
def test_sources_are_in_the_catalogue(law: type[Any]) -> None:
    from scalecli.data.catalogue import sources

    assert law.sources
    assert set(law.sources) <= set(sources())


@every_law
def test_parameters_are_searchable(law: type[Any]) -> None:
    for name, param in parameters(law).items():
        assert param.low < param.high, name
        assert not param.log or param.low > 0, f"{name} is searched as a logarithm"
        low, high = param.start or (param.low, param.high)
        assert param.low <= low < high <= param.high, name
    assert set(linear_parameters(law)) <= set(names(law))


@every_law
def test_gradient_is_the_derivative(law: type[Any]) -> None:
    example = example_of(law)
    x, point = example.columns(), values(example.law)
    gradient = example.law.gradient(x)
    assert gradient.shape == (ROWS, len(point))
    # the step that balances truncation and rounding of a central difference (Nocedal and Wright 2006, 8.1)
    steps = np.finfo(float).eps ** (1 / 3) * np.maximum(np.abs(point), 1e-3)
    for i, step in enumerate(steps):
        ahead, behind = point.copy(), point.copy()
        ahead[i] += step
        behind[i] -= step
        slope = (with_values(law, ahead).predict(x) - with_values(law, behind).predict(x)) / (ahead - behind)[
            i
        ]
        np.testing.assert_allclose(gradient[:, i], slope, rtol=1e-5, atol=1e-6 * np.abs(slope).max())


@every_law
def test_a_bundle_is_its_draws(law: type[Any]) -> None:
    example = example_of(law)
    x, point = example.columns(rows=9), values(example.law)
    draws = np.stack([point, point * 1.01, point * 0.99])
    bundle = with_values(law, draws)
    each = [with_values(law, draw) for draw in draws]
    predicted = np.broadcast_to(bundle.predict(x), (3, 9))
    np.testing.assert_allclose(predicted, [one.predict(x) for one in each], rtol=1e-12)
    slopes = np.broadcast_to(bundle.gradient(x), (3, 9, len(point)))
    np.testing.assert_allclose(slopes, [one.gradient(x) for one in each], rtol=1e-9)
    np.testing.assert_array_equal(values(bundle), draws)


@searched_law
def test_declared_structure_is_true(law: type[Any]) -> None:
    """Terms add up to the prediction, and linear parameters enter linearly."""
    example = example_of(law)
    x, point = example.columns(), values(example.law)
    params = dict(zip(names(law), point, strict=True))
    if isinstance(law, PowerSum):
        total = np.zeros(ROWS)
        for term in law.terms:
            assert parameters(law)[term.scale].log
            powers = [sign * params[exponent] * np.log(x[column]) for column, exponent, sign in term.powers()]
            total += params[term.scale] * np.exp(np.sum(powers, axis=0))
        np.testing.assert_allclose(total, example.law.predict(x), rtol=1e-10)
    linear = linear_parameters(law)
    if linear:
        doubled = replace(example.law, **{name: 2 * params[name] for name in linear})
        none = replace(example.law, **dict.fromkeys(linear, 0.0))
        sloped = example.law.gradient(x)[:, [names(law).index(name) for name in linear]]
        step = sloped @ [params[name] for name in linear]
        np.testing.assert_allclose(example.law.predict(x), none.predict(x) + step, rtol=1e-9)
        np.testing.assert_allclose(doubled.predict(x), none.predict(x) + 2 * step, rtol=1e-9)


@searched_law
def test_recovers_its_parameters_from_exact_runs(law: type[Any]) -> None:
    example = example_of(law)
    x = example.columns()
    data = Data(x, example.law.predict(x), np.ones(ROWS))
    found = solve(law, data, row_loss(LossName.huber, 1e-3), {})
    np.testing.assert_allclose(found.raw, values(example.law), rtol=1e-4)
    assert found.certificate.agree >= 2


@searched_law
def test_recovers_its_parameters_from_noisy_runs(law: type[Any]) -> None:
    """Within five of the standard deviations that the design allows (Huber at 1e-3 is near least absolute values,
    whose variance on normal noise is pi/2 that of least squares)."""
    example = example_of(law)
    x = example.columns()
    y = example.law.predict(x) * np.exp(NOISE * np.random.default_rng(1).standard_normal(ROWS))
    found = solve(law, Data(x, y, np.ones(ROWS)), row_loss(LossName.huber, 1e-3), {})
    problem = found.problem
    truth = problem.from_raw(values(example.law)[None])
    slopes = problem.jacobian(truth)[0]
    spread = NOISE * np.sqrt(np.pi / 2 * np.diag(np.linalg.inv(slopes.T @ slopes)))
    assert (np.abs(found.theta - truth[0]) < 5 * spread).all()


@searched_law
def test_too_few_runs_are_refused(law: type[Any]) -> None:
    example = example_of(law)
    x = example.columns(rows=len(names(law)))
    with pytest.raises(TooFewRuns, match=str(len(names(law)))):
        fit_law(law, x, example.law.predict(x), options=FitOptions(draws=0))


@searched_law
def test_repeated_settings_are_refused(law: type[Any]) -> None:
    """Many runs at one and the same setting determine nothing, however many there are."""
    example = example_of(law)
    x = {name: np.repeat(column[:1], 50) for name, column in example.columns().items()}
    y = example.law.predict(x) * np.linspace(0.99, 1.01, 50)
    with pytest.raises(NotIdentified):
        fit_law(law, x, y, options=FitOptions(draws=0))


@every_law
def test_inverses_round_trip(law: type[Any]) -> None:
    """`<input>_for_<output>(value, other inputs...)` solves the law for that input."""
    example = example_of(law)
    x = example.columns()
    for name, column in x.items():
        inverse = getattr(example.law, f"{name}_for_{law.output}", None)
        if inverse is None:
            continue
        given, *others = inspect.signature(inverse).parameters
        assert given == law.output
        found = inverse(example.law.predict(x), *(x[other] for other in others))
        np.testing.assert_allclose(found, column, rtol=1e-6)


@every_law
def test_input_for_loss_round_trips(law: type[Any]) -> None:
    example = example_of(law)
    if hasattr(law, "input_for_loss"):
        x = example.columns()
        (column,) = (x[name] for name in law.inputs)
        np.testing.assert_allclose(example.law.input_for_loss(example.law.predict(x)), column, rtol=1e-6)


@every_law
def test_optimal_allocation_is_the_argmin(law: type[Any]) -> None:
    """`optimal_params` and `optimal_tokens` spend the budget, and no other split of it has a lower loss."""
    example = example_of(law)
    if not {"params", "tokens"} <= set(law.inputs) or not hasattr(law, "optimal_params"):
        return
    flops = 1e21
    best, tokens = float(example.law.optimal_params(flops)), float(example.law.optimal_tokens(flops))
    assert 6 * best * tokens == pytest.approx(flops)
    factors = np.array([0.5, 0.97, 1.0, 1.03, 2.0])
    size = best * factors
    others = {name: np.full(5, column[0]) for name, column in example.columns().items()}
    loss = example.law.predict(
        others | {"params": size, "tokens": flops / 6 / size, "flops": np.full(5, flops)}
    )
    assert loss.argmin() == 2


def test_a_law_over_another_column() -> None:
    law = law_named("power-floor:tokens")
    assert law is law_named("power-floor:tokens")
    truth = law(E=1.5, A=300.0, alpha=0.3)
    x: Columns = {"tokens": np.geomspace(1e8, 1e11, 12)}
    fit = fit_law(law, x, truth.predict(x), options=FitOptions(draws=20))
    assert fit.law.alpha == pytest.approx(0.3)
    assert fit.document()["inputs"] == ["tokens"]
    assert measured_column(law) == "loss"
