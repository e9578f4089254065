"""Sweeps from TOML files, and their dry run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.config import Optimizer, ProbeConfig
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.estimate import estimate_sweep
from scalecli.probes.spec import SweepSpec, sweep_spec, with_settings
from scalecli.probes.timescale import timescale_note
from scalecli.probes.timing import StepTime

FILE = """
data = "text.txt"
params = ["20k", 4e4]
tokens_per_param = [5, 20]
batch_tokens = 512
learning_rate = [1e-3, 3e-3]
seeds = 2
[recipe]
sequence_length = 64
schedule = "linear"
[recipe.optimizer]
weight_decay = 0
[recipe.evaluation]
sequences = 32
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    return path


def test_a_file_gives_its_grid(tmp_path: Path, corpus: Corpus) -> None:
    spec = sweep_spec(written(tmp_path, FILE))
    assert spec.params == (20_000, 40_000)
    configs = spec.configs(replace(corpus, vocab=256))
    assert len(configs) == 2 * 2 * 1 * 2 * 2
    assert {config.batch_tokens for config in configs} == {512}
    assert {config.optimizer.weight_decay for config in configs} == {0.0}
    assert {config.schedule.name for config in configs} == {"linear"}
    assert {config.data for config in configs} == {"text.txt"}


def test_a_kept_timescale_sets_every_runs_decay(corpus: Corpus) -> None:
    spec = replace(SweepSpec(), params=(2e4,), tokens_per_param=(5.0, 20.0), learning_rate=(1e-3, 3e-3))
    kept = replace(spec, recipe=replace(spec.recipe, timescale=0.3)).configs(replace(corpus, vocab=256))
    assert [config.timescale for config in kept] == pytest.approx([0.3] * len(kept))
    assert len({config.optimizer.weight_decay for config in kept}) > 2
    assert timescale_note(kept) is None
    long = spec.configs(replace(corpus, vocab=256))
    weak = [replace(config, optimizer=replace(config.optimizer, weight_decay=1e-4)) for config in long]
    note = timescale_note(weak)
    assert note is not None
    assert f"{len(weak)} of {len(weak)} runs" in note.message
    sgd = [replace(config, optimizer=Optimizer(name="sgd")) for config in long]
    assert timescale_note(sgd) is None


def test_repetition_is_an_axis_and_settings_are_keys_of_the_file(corpus: Corpus) -> None:
    spec = with_settings(
        SweepSpec(),
        ["params=['20k']", "unique_tokens=['4k', '8k']", "recipe.aspect=8", "recipe.schedule=linear"],
    )
    configs = spec.configs(replace(corpus, vocab=256))
    assert {config.unique_tokens for config in configs} == {4_000, 8_000}
    assert {config.schedule.name for config in configs} == {"linear"}
    assert {config.shape.width / config.shape.layers for config in configs} == {8.0}
    for wrong in ("colour=1", "recipe.colour=1", "recipe.aspect=wide", "recipe=1", "params.deep=1"):
        with pytest.raises(ProbeError):
            with_settings(SweepSpec(), [wrong])
    mixed = with_settings(SweepSpec(), ["data={a={path='x', share=0.5}, b={path='y', share=0.5}}"])
    assert mixed.data == "a=x:0.5,b=y:0.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params = [", "no TOML"),
        ("parameters = [1e4]", "no 'parameters'"),
        ("params = ['many']", "params"),
        ("params = [-3]", "positive"),
        ("params = []", "positive"),
        ("seeds = 0", "seeds"),
        ("seeds = 'two'", "type int"),
        ("recipe = 3", "table"),
        ("[recipe]\nsequence_length = 'long'", "sequence_length"),
        ("[recipe.optimizer]\nname = 'adamwise'", "adamwise"),
        ("[recipe]\noptimizer = 'adamw'", "table"),
    ],
)
def test_what_a_sweep_does_not_know_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        sweep_spec(written(tmp_path, text))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="cannot be read"):
        sweep_spec(tmp_path / "nothing.toml")


def test_sizes_or_a_budget_are_needed(corpus: Corpus) -> None:
    with pytest.raises(ProbeError, match="sizes or a budget"):
        SweepSpec().configs(corpus)


def test_given_sizes_must_fit_the_budget(corpus: Corpus) -> None:
    spec = SweepSpec(params=(2e4,))
    assert spec.configs(replace(corpus, vocab=256), budget=100.0, cost=len)
    with pytest.raises(ProbeError, match="budget is 3"):
        spec.configs(replace(corpus, vocab=256), budget=3.0, cost=len)


ONE_CORE = Capacity("cpu", 1)


def test_the_dry_run_counts_what_is_left(config: ProbeConfig) -> None:
    runs = [replace(config, seed=seed) for seed in range(4)]
    step = StepTime(overhead=0.0, seconds_per_flop=1e-9)
    whole = estimate_sweep(runs, step, ONE_CORE)
    assert (whole.runs, whole.skipped) == (4, 0)
    assert whole.flops == pytest.approx(4 * config.flops_exact)
    rest = estimate_sweep(runs, step, ONE_CORE, finished={runs[0].run_id})
    assert (rest.runs, rest.skipped) == (3, 1)
    assert rest.flops == pytest.approx(0.75 * whole.flops)
    assert rest.seconds is not None
    assert whole.seconds is not None
    assert rest.seconds < whole.seconds
    assert estimate_sweep(runs, None, ONE_CORE).seconds is None
    # Weights, gradients and two moments of all copies are the least there can be.
    assert whole.bytes > 4 * 16 * config.shape.params
    assert estimate_sweep([], step, ONE_CORE).bytes == 0


def test_the_dry_run_counts_what_shared_trunks_save(config: ProbeConfig) -> None:
    lengths = [replace(config, steps=steps) for steps in (20, 40, 60)]  # the last fifth is their own
    found = estimate_sweep(lengths, StepTime(0.0, 1e-9), ONE_CORE)
    assert found.saved_flops == pytest.approx((16 + 32) * config.flops_exact / config.steps)
    assert found.flops + found.saved_flops == pytest.approx(120 * config.flops_exact / config.steps)


def test_runs_as_a_design_writes_them(tmp_path: Path, corpus: Corpus) -> None:
    text = """
[[runs]]
params = 2e4
tokens = 4e5

[[runs]]
params = 2e4
tokens = 4e5

[[runs]]
params = 5e4
tokens = 1e6
batch_tokens = 1024
learning_rate = 2e-3
"""
    configs = sweep_spec(written(tmp_path, text)).configs(corpus)
    assert len(configs) == 3
    assert len({config.run_id for config in configs}) == 3
    assert configs[2].learning_rate == 2e-3
    assert [config.seed for config in configs] == [0, 1, 0]
    with pytest.raises(ProbeError, match="needs params and tokens"):
        sweep_spec(written(tmp_path, "[[runs]]\nparams = 2e4"))
