"""Identity of a run: what enters it, and what must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scalecli.errors import ProbeError
from scalecli.probes.config import Conduct, Optimizer, ProbeConfig
from scalecli.probes.schedule import Schedule


def test_json_round_trip(config: ProbeConfig) -> None:
    again = ProbeConfig.from_json(config.to_json())
    assert again == config
    assert again.run_id == config.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"data_sha256": "1" * 64},
        {"optimizer": Optimizer(beta2=0.99)},
        {"schedule": Schedule(name="linear")},
        {"batch_sequences": 4},
        {"steps": 61},
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"learning_rate": 0.011},
        {"parametrization": "mup"},
        {"unique_tokens": 1000},
    ],
)
def test_what_decides_the_result_decides_the_identity(config: ProbeConfig, change: dict) -> None:
    assert replace(config, **change).run_id != config.run_id


def test_places_and_conduct_are_not_identity(config: ProbeConfig) -> None:
    assert replace(config, data="/somewhere/else", tokenizer="here.json").run_id == config.run_id
    kept = Conduct(checkpoints="/tmp", stop_above=0.5, readings="/tmp/x")
    assert replace(config, conduct=kept).run_id == config.run_id


def test_identity_is_pinned(config: ProbeConfig) -> None:
    """A change of this value orphans every stored run: raise RECIPE knowingly when it changes."""
    assert config.run_id == "5f4be4a5fea78b59"


def test_family_differs_in_length_only(config: ProbeConfig) -> None:
    longer = replace(config, steps=3 * config.steps)
    assert longer.family == config.family
    assert replace(config, seed=3).family != config.family


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"grad_clip": -1.0},
        {"unique_tokens": 16},
        {"parametrization": "mup", "optimizer": Optimizer(name="sgd")},
    ],
)
def test_impossible_runs_are_refused(config: ProbeConfig, change: dict) -> None:
    with pytest.raises(ProbeError):
        replace(config, **change)


def test_unknown_names_are_refused_with_the_known_ones(config: ProbeConfig) -> None:
    with pytest.raises(ProbeError) as refused:
        Optimizer(name="adam")  # type: ignore[arg-type]
    assert "adamw" in refused.value.hint
    with pytest.raises(ProbeError, match="colour"):
        ProbeConfig.from_dict({"colour": "red"})
