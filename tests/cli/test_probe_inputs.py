"""What `probe` commands take besides sizes: models, data, tokenizers, settings, checkpoints and the rule to give up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.data.store import Store
from scalecli.data.tables import read_runs

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = ("--device", "cpu")


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def document(*words: object) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def rows(store: Path) -> list[dict[str, Any]]:
    with Store.open(store, write=False) as opened:
        return [dict(row) for _, row in opened.runs().iterrows()]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALECLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "runs.db"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, store: Path) -> tuple[object, ...]:
    """The worked example, from its own folder."""
    monkeypatch.chdir(EXAMPLES)
    return ("--model", "own_tasks:curve", "--set", "recipe.evaluation.sequences=64", "--store", store, *HERE)


def test_a_ladder_of_ones_own_model_is_swept_resumed_and_told(own: tuple[object, ...], store: Path) -> None:
    words = (
        "probe", "sweep", *own, "--params", "1k,4k", "--tokens-per-param", "0.5,1", "--batch-tokens", 64,
        "--learning-rate", "1e-2",
    )  # fmt: skip
    assert document(*words, "--dry-run")["runs"] == 4
    assert document(*words)["finished"] == 4
    assert document(*words)["skipped"] == 4
    found = rows(store)
    assert {row["dataset"] for row in found} == {"own_tasks:curve"}
    assert len({row["params"] for row in found}) == 2
    assert all(row["loss"] > 0 for row in found)


@pytest.mark.parametrize(
    "words",
    [
        ("noise", "--params", "2k", "--tokens", "4k", "--batch-tokens", 64, "--windows", 2),
        ("coordinates", "--widths", "16,32,64", "--steps", 4, "--seeds", 1, "--batch-tokens", 64),
        ("throughput", "--params", "2k", "--micro-batch", 4),
        ("critical-batch", "--params", "2k", "--tokens", "4k", "--batch-tokens", 16, "--branch-at", 60),
    ],
)
def test_every_measurement_takes_a_model_of_ones_own(
    own: tuple[object, ...], words: tuple[object, ...]
) -> None:
    assert document("probe", *words, *own)["schema"].startswith("scalecli/probe-")


def test_a_configuration_of_transformers_trains_on_mixed_text(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    configuration = tmp_path / "config.json"
    configuration.write_text(
        json.dumps({"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4})
    )
    for name in ("letters", "digits"):
        text = "".join(f"{name} {n} {n * n}\n" for n in range(9000))
        (tmp_path / f"{name}.txt").write_text(text)
    mixture = f"letters={tmp_path}/letters.txt:0.6,digits={tmp_path}/digits.txt:0.4"
    words = (
        "probe", "train", "--model", f"hf:{configuration}", "--data", mixture, "--params", "20k", "--tokens", "20k",
        "--batch-tokens", 512, "--learning-rate", 1e-2, "--sequence-length", 32, "--store", store, *HERE,
    )  # fmt: skip
    shown = run(*words, "--json")
    assert shown.exit_code == 0, shown.stderr
    assert "W-MIXTURE" in shown.stderr
    (row,) = rows(store)
    assert (row["mix_letters"], row["mix_digits"], row["status"]) == (0.6, 0.4, "ok")
    assert row["metric_loss_letters"] > 0


def test_text_in_pairs_and_settings_of_the_file(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "text.txt").write_text("".join(f"{n} times {n} is {n * n}\n" for n in range(9000)))
    words = (
        "probe", "train", "--data", tmp_path / "text.txt", "--tokenizer", "bpe:300", "--params", "60k",
        "--tokens", "20k", "--batch-tokens", 512, "--learning-rate", 1e-2, "--sequence-length", 32, *HERE,
        "--store", store, "--set", "recipe.aspect=4", "--set", "recipe.num_experts=2",
        "--set", "recipe.optimizer.beta2=0.99",
    )  # fmt: skip
    document(*words)
    (row,) = rows(store)
    assert row["tokenizer"].startswith("bpe:300@")
    assert row["vocab_size"] <= 300
    assert row["bytes_per_token"] > 1.2
    assert (row["depth"], row["num_experts"], row["beta2"]) == (6, 2, 0.99)
    for wrong, code in (("recipe.colour=red", 30), ("recipe.aspect=wide", 30), ("seeds=0", 30)):
        assert run(*words, "--set", wrong).exit_code == code


def test_token_files_need_a_vocabulary_that_holds_them(store: Path, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 300, 90_000).astype("<u2")
    ids.tofile(tmp_path / "train.bin")
    words = (
        "probe", "train", "--data", tmp_path / "train.bin", "--params", "30k", "--tokens", "8k", "--batch-tokens", 512,
        "--learning-rate", 1e-3, "--sequence-length", 32, "--store", store, *HERE,
    )  # fmt: skip
    assert run(*words, "--tokenizer", "ids:200").exit_code == 10
    document(*words, "--tokenizer", "ids:300")
    assert rows(store)[0]["vocab_size"] == 300


def test_a_hopeless_run_is_given_up_skipped_and_trained_when_the_rule_is_gone(
    own: tuple[object, ...], store: Path
) -> None:
    words = (
        "probe", "sweep", *own, "--params", "2k", "--tokens-per-param", 2, "--batch-tokens", 32,
        "--learning-rate", "1e-7,1e-2",
    )  # fmt: skip
    ruled = (*words, "--slots", 1, "--stop-above", 0.3)
    document(*ruled)
    first = {row["status"] for row in rows(store)}
    # Whichever came first had no rival; run again, the slow one meets the other's readings.
    if first == {"ok"}:
        document(*words[:-1], "2e-7", "--slots", 1, "--stop-above", 0.3)
    statuses = [row["status"] for row in rows(store)]
    assert statuses.count("stopped") == 1
    (given_up,) = (row for row in rows(store) if row["status"] == "stopped")
    assert "above the best" in given_up["status_reason"]
    one = (*words[:-1], f"{given_up['learning_rate']:g}")
    assert document(*one, "--stop-above", 0.3)["skipped"] == 1
    assert read_runs(store).dropped[0].reason == "status stopped"
    assert document(*one)["finished"] == 1
    assert {row["status"] for row in rows(store)} == {"ok"}


def test_checkpoints_are_kept_where_one_asks_for_them(own: tuple[object, ...], tmp_path: Path) -> None:
    words = (
        "probe",
        "train",
        *own,
        "--params",
        "2k",
        "--tokens",
        "2k",
        "--batch-tokens",
        64,
        "--learning-rate",
        1e-2,
    )
    document(*words, "--checkpoint", tmp_path / "kept", "--micro-batch", 16)
    assert not (tmp_path / "kept").exists()  # shorter than the time between two checkpoints
