"""Grids and ladders."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.ladder import Recipe, grid, ladder
from scalecli.probes.units import plan_units, unit_flops


@pytest.fixture(scope="session")
def bytes_corpus(corpus: Corpus) -> Corpus:
    return replace(corpus, vocab=256)


def flops(configs: list) -> float:
    return sum(unit_flops(unit) for unit in plan_units(configs, device_type="cpu"))


def test_a_grid_is_every_combination(bytes_corpus: Corpus) -> None:
    configs = grid(
        bytes_corpus, "here", params=[2e4, 4e4], tokens_per_param=[5, 20], batch_tokens=[256, 1024],
        learning_rates=[1e-3, 1e-2], seeds=2,
    )  # fmt: skip
    assert len(configs) == len({config.run_id for config in configs}) == 2 * 2 * 2 * 2 * 2
    assert [config.shape.params for config in configs] == sorted(config.shape.params for config in configs)
    for config in configs:
        assert config.tokens == pytest.approx(
            config.shape.params * 5, rel=0.05
        ) or config.tokens == pytest.approx(config.shape.params * 20, rel=0.05)
        assert config.schedule.warmup_steps > 0


def test_defaults_vary_everything_and_share_trunks(bytes_corpus: Corpus) -> None:
    configs = grid(bytes_corpus, "here", params=[3e4])
    ratios = {round(config.tokens / config.shape.params) for config in configs}
    assert len(ratios) >= 3
    assert len({config.batch_tokens for config in configs}) >= 3
    assert len({config.learning_rate for config in configs}) >= 3
    separate = sum(config.flops_exact for config in configs)
    assert flops(configs) < 0.85 * separate


def test_the_same_request_gives_the_same_runs(bytes_corpus: Corpus) -> None:
    first, second = (grid(bytes_corpus, where, params=[2e4]) for where in ("here", "there"))
    assert [config.run_id for config in first] == [config.run_id for config in second]


def test_a_ladder_fills_its_budget(bytes_corpus: Corpus) -> None:
    for budget in (3e13, 1e15):
        configs = ladder(bytes_corpus, "here", budget=budget, cost=flops)
        sizes = sorted({config.shape.params for config in configs})
        assert 0.6 * budget < flops(configs) <= budget
        assert len(sizes) == 3
        assert 3 < sizes[-1] / sizes[0] < 5.5


def test_too_small_a_budget_says_what_the_least_is(bytes_corpus: Corpus) -> None:
    with pytest.raises(ProbeError, match="budget is 1e\\+06"):
        ladder(bytes_corpus, "here", budget=1e6, cost=flops)


def test_a_recipe_reaches_the_runs(bytes_corpus: Corpus) -> None:
    recipe = Recipe(sequence_length=64, schedule="linear", qk_norm=True, grad_clip=0.5)
    (config,) = grid(
        bytes_corpus, "here", params=[2e4], tokens_per_param=[5], batch_tokens=[100], learning_rates=[1e-3],
        recipe=recipe,
    )  # fmt: skip
    assert (config.sequence_length, config.batch_sequences, config.grad_clip) == (64, 2, 0.5)
    assert config.schedule.name == "linear"
    assert config.shape.qk_norm
