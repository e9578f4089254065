"""The whole way on a very small budget, and the parts that decide what is trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from scalecli.data.corpus import load_corpus
from scalecli.data.tables import RunTable, read_runs
from scalecli.export.schemas import document_schema
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.ladder import grid
from scalecli.probes.timing import StepTime
from scalecli.quickstart import RECIPE, Design, Settings, beyond_edges, quickstart


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text with structure on several scales: enough for the smallest ladder."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghij"), random.integers(2, 7))) for _ in range(400)]
    order = random.zipf(1.3, 300_000) % len(words)
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(
        "\n".join(" ".join(words[i] for i in order[start : start + 12]) for start in range(0, len(order), 12))
    )
    return path


def configs(corpus_file: Path) -> list[ProbeConfig]:
    return grid(
        load_corpus(str(corpus_file)), str(corpus_file), params=[15e3], tokens_per_param=[2, 4],
        batch_tokens=[128, 256, 512], learning_rates=[1e-3, 2e-3, 4e-3], recipe=RECIPE,
    )  # fmt: skip


def runs_with_losses(made: list[ProbeConfig], loss: Any) -> RunTable:
    frame = pd.DataFrame(
        {
            "run_id": [config.run_id for config in made],
            "params": [float(config.shape.params) for config in made],
            "tokens": [float(config.tokens) for config in made],
            "loss": [loss(config) for config in made],
        }
    )
    return RunTable(frame, np.arange(len(frame)), len(frame), (), "test", "0")


def test_a_best_run_inside_the_grid_asks_for_nothing_more(corpus_file: Path) -> None:
    made = configs(corpus_file)
    inside = runs_with_losses(
        made, lambda c: abs(np.log(c.learning_rate / 2e-3)) + abs(np.log(c.batch_sequences / 4))
    )
    assert beyond_edges(made, inside) == []


def test_a_best_run_at_the_highest_rate_asks_for_twice_that_rate_at_every_batch(corpus_file: Path) -> None:
    made = configs(corpus_file)
    edge = runs_with_losses(made, lambda c: -np.log(c.learning_rate) + abs(np.log(c.batch_sequences / 4)))
    more = beyond_edges(made, edge)
    assert {config.learning_rate for config in more} == {8e-3}
    assert {config.batch_sequences for config in more} == {2, 4, 8}
    assert not {config.run_id for config in more} & {config.run_id for config in made}


def test_a_best_run_at_the_smallest_batch_asks_for_half_of_it_with_lower_rates(corpus_file: Path) -> None:
    made = configs(corpus_file)
    edge = runs_with_losses(made, lambda c: abs(np.log(c.learning_rate / 2e-3)) + c.batch_sequences)
    more = beyond_edges(made, edge)
    assert {config.batch_sequences for config in more} == {1}
    assert {config.learning_rate for config in more} == {rate * 0.5**0.5 for rate in (1e-3, 2e-3, 4e-3)}
    assert {config.tokens for config in more} == {
        config.tokens for config in made if config.batch_sequences == 2
    }


def write_small_design(folder: Path, settings: Settings) -> list[ProbeConfig]:
    """A design of a few short runs, as if the machine had been measured and found slow."""
    corpus = load_corpus(settings.data)
    made = grid(
        corpus, settings.data, params=[15e3, 26e3, 42e3], tokens_per_param=[0.5, 1, 2], batch_tokens=[256],
        learning_rates=[4e-3, 8e-3, 1.6e-2], recipe=RECIPE,
    )  # fmt: skip
    design = Design(ladder=tuple(made), pace=StepTime(1e-3, 1e-10), capacity=Capacity("cpu", 2))
    key = {**asdict(settings), "data_sha256": corpus.sha256}
    (folder / "design.json").write_text(json.dumps({"key": key, **asdict(design)}))
    return made


def test_the_whole_way_and_again_without_training_anything_twice(corpus_file: Path, tmp_path: Path) -> None:
    settings = Settings(minutes=0.05, data=str(corpus_file), device="cpu")
    small = write_small_design(tmp_path, settings)
    said: list[str] = []
    first = quickstart(tmp_path, settings, announce=said.append)
    Draft202012Validator(document_schema("quickstart")).validate(first)
    assert first["target"]["params"] > max(config.shape.params for config in small)
    assert len(set(first["measured"]["losses"])) == 3  # three seeds
    assert first["predicted"]["low"] < first["predicted"]["value"] < first["predicted"]["high"]
    assert all((tmp_path / name).exists() for name in first["files"])
    assert "predicted" in (tmp_path / "summary.md").read_text()
    trained = read_runs(tmp_path / "runs.db").frame["created_at"].tolist()
    again = quickstart(tmp_path, settings, announce=said.append)
    assert read_runs(tmp_path / "runs.db").frame["created_at"].tolist() == trained
    assert again["measured"] == first["measured"]
    assert again["predicted"] == first["predicted"]
