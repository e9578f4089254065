"""The measuring probes from the command line: documents, store, resumption, dry runs and exit codes; all real, tiny."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.data.store import Store
from scalecli.export.schemas import document_schema

SIZE = ("--params", "15k", "--tokens", "24k", "--sequence-length", 32, "--device", "cpu")


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def document(name: str, *words: object) -> dict[str, Any]:
    """What a command prints under `--json`, held against its schema."""
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    Draft202012Validator(document_schema(name)).validate(found)
    return found


def failure(*words: object) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.stdout == ""
    error: dict[str, Any] = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error["code"] == result.exit_code
    return error


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of a small language: enough for a corpus, quick to read."""
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioulmnrst", k=draw.randint(2, 6))) for _ in range(200)]
    folder = tmp_path_factory.mktemp("text")
    for number in range(24):
        chosen = (draw.choice(words[: 1 + draw.randrange(200)]) for _ in range(2000))
        (folder / f"{number}.txt").write_text(" ".join(chosen))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def common(text: Path, store: Path) -> tuple[object, ...]:
    return (*SIZE, "--data", text, "--store", store)


def measured(store: Path, kind: str) -> int:
    with Store.open(store, write=False) as opened:
        return len(opened.measurements(kind))


def test_noise_is_measured_once_and_its_rows_fit_a_law(
    common: tuple[object, ...], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "noise.csv"
    words = ("probe", "noise", *common, "--batch-tokens", 512, "--windows", 3, "--rows", rows, "--by-layer")
    first = document("probe-noise", *words)
    for point in first["points"]:
        estimate = point["noise_scale_tokens"]
        assert point["examples"] == 16 * point["steps"]
        assert not point["resolved"] or estimate["low"] < estimate["value"] < estimate["high"]
    assert first["points"][0]["loss"] > first["points"][-1]["loss"]
    assert "W-NOT-CRITICAL-BATCH" in {warning["code"] for warning in first["warnings"]}
    assert {layer["layer"] for layer in first["layers"]} >= {"embedding", "head"}
    assert document("fit", "fit", rows, "--law", "noise-scale")["rows"]["used"] >= 2
    assert measured(store, "noise") > len(first["layers"])

    monkeypatch.setattr("scalecli.probes.noise.run.run", None)  # the second time nothing is trained
    assert document("probe-noise", *words) == first
    shown = run(*words).stdout
    assert "Gradient noise scale [tokens]" in shown
    assert "sequences it rests on" in shown


def test_batches_that_follow_the_noise_become_a_plans_schedule(
    common: tuple[object, ...], tmp_path: Path
) -> None:
    table = tmp_path / "batches.csv"
    words = ("probe", "noise", *common, "--batch-tokens", 512, "--windows", 3, "--hessian", "--every", 8)
    found = document("probe-noise", *words, "--batch-schedule", table)
    batches = [stage["norm_test_batch_tokens"] for stage in found["schedule"]]
    assert batches == sorted(batches)
    assert all("hessian" in point for point in found["points"])
    plan = ("plan", "--params", "1B", "--tokens", "20B", "--batch-tokens", "1M", "--batch-schedule", table)
    stages = document("plan", *plan)["batch"]["schedule"]
    assert stages[-1]["batch_tokens"] == pytest.approx(1e6, rel=0.01)
    assert len(stages) <= len(set(batches)) + 2


def test_curvature_and_stability_bound_a_plans_rate(common: tuple[object, ...], tmp_path: Path) -> None:
    files = [tmp_path / "curvature.json", tmp_path / "stability.json"]
    curvature = document(
        "probe-curvature", "probe", "curvature", *common, "--batch-tokens", 256, "--batches", "64,1024",
        "--repeats", 2, "--iterations", 8, "--out", files[0],
    )  # fmt: skip
    for point in curvature["points"]:
        assert 0 < point["curvature"]["low"] <= point["curvature"]["value"] <= point["curvature"]["high"]
    assert curvature["stable"]["learning_rate"] > 0
    stability = document(
        "probe-stability", "probe", "stability", *common, "--batch-tokens", 256, "--learning-rate", "1e-3,1e-2,10",
        "--out", files[1],
    )  # fmt: skip
    assert [each["stable"] for each in stability["trained"]][-1] is False
    assert stability["stable"]["learning_rate"] in (1e-3, 1e-2)
    ceilings = [word for file in files for word in ("--probe", file)]
    plan = document("plan", "plan", "--params", "1B", "--tokens", "20B", *ceilings)
    told = [line for line in plan["lines"] if line["name"] == "learning rate ceiling"]
    assert {line["source"] for line in told} == {"curvature.json", "stability.json"}
    lowest = min(line["value"] for line in told)
    assert plan["learning_rate"]["peak"]["value"] <= lowest * (1 + 1e-9)


def test_a_rate_is_carried_up_in_width_and_the_search_resumes(text: Path, store: Path) -> None:
    words = (
        "probe", "telescope", "--widths", "16:32", "--tokens-per-param", 1, "--batch-tokens", 256, "--points", 5,
        "--octaves", 8, "--sequence-length", 32, "--device", "cpu", "--data", text, "--store", store,
    )  # fmt: skip
    assert document("sweep-estimate", *words, "--dry-run")["runs"] == 5 + 3
    found = document("probe-telescope", *words)
    first, second = found["stages"]
    assert (first["width"], second["width"]) == (16, 32)
    assert second["spacing_octaves"] == first["spacing_octaves"]  # half the octaves and half the gaps
    assert len(second["rates"]) == 3
    assert found["learning_rate"] == second["learning_rate"]
    assert document("sweep-estimate", *words, "--dry-run")["skipped"] >= 5


def test_noise_without_signal_says_so_with_the_estimate(common: tuple[object, ...]) -> None:
    error = failure(
        "probe", "noise", *common, "--batch-tokens", 64, "--micro-batches", 2, "--learning-rate", 1e-2, "--every", 60,
        "--windows", 1,
    )  # fmt: skip
    assert (error["code"], error["type"]) == (31, "NotEnoughSignal")
    assert "noise over signal is" in error["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("noise", "--batch-tokens", 512),
        ("critical-batch", "--batch-tokens", "64,128,256"),
        ("critical-batch", "--branch-at", 20, "--batch-tokens", 64, "--factors", "1,2"),
        ("lr", "--batch-tokens", 512),
        ("curvature", "--batch-tokens", 256),
        ("stability", "--batch-tokens", "256,512"),
    ],
    ids=lambda words: words[0],
)
def test_dry_runs_say_what_would_run_and_leave_nothing(
    words: tuple[object, ...], common: tuple[object, ...], store: Path
) -> None:
    found = document("sweep-estimate", "probe", *words, *common, "--dry-run")
    assert found["runs"] >= 1
    assert found["flops"] > 0
    assert found["seconds"] > 0
    assert not store.exists()


def test_learning_rate_range_from_whole_trainings_resumes(
    common: tuple[object, ...], store: Path, tmp_path: Path
) -> None:
    words = ("probe", "lr", *common, "--batch-tokens", 256, "--seeds", 1, "--low", 2e-3, "--high", 0.128)
    found = document("probe-lr", *words)
    rate = found["learning_rate"]
    assert rate["low"] < rate["value"] < rate["high"]
    assert 2e-3 < rate["value"] < 0.128
    assert found["seed_std"] is None
    best = min(found["runs"], key=lambda each: each["loss"] or 99.0)
    assert best["learning_rate"] / 2 < rate["value"] < 2 * best["learning_rate"]
    dry = document("sweep-estimate", *words, "--dry-run")
    assert (dry["runs"], dry["skipped"]) == (0, len(found["runs"]))
    document("probe-lr", *words, "--out", tmp_path / "lr.json")
    assert json.loads((tmp_path / "lr.json").read_text())["stable"] == found["stable"]

    error = failure(
        "probe", "lr", *common, "--batch-tokens", 256, "--seeds", 1, "--low", 1e-4, "--high", 4e-4
    )
    assert error["code"] == 31
    assert "larger rates" in error["hint"]


def test_runs_that_fail_make_the_probe_incomplete(common: tuple[object, ...]) -> None:
    error = failure(
        "probe", "lr", *common, "--seeds", 1, "--timeout", "0.001s", "--low", 1e-3, "--high", 2e-3
    )
    assert (error["code"], error["type"]) == (33, "SweepIncomplete")


def test_critical_batch_from_steps_to_a_target(common: tuple[object, ...], tmp_path: Path) -> None:
    rows = tmp_path / "steps.csv"
    found = document(
        "probe-critical-batch", "probe", "critical-batch", *common, "--batch-tokens", "128,256,512",
        "--learning-rate", "8e-3", "--rows", rows,
    )  # fmt: skip
    assert found["method"] == "steps to a target"
    assert {row["batch_tokens"] for row in found["rows"]} == {128, 256, 512}
    assert all(figure["definition"] for figure in found["critical"])
    again = document("critical-batch", "critical-batch", rows)
    assert again["targets"] == found["targets"]


def test_critical_batch_from_branches(common: tuple[object, ...], store: Path) -> None:
    words = (
        "probe",
        "critical-batch",
        *common,
        "--branch-at",
        60,
        "--batch-tokens",
        64,
        "--factors",
        "1,4,32",
    )
    found = document("probe-critical-batch", *words, "--tolerance", 0.02)
    (figure,) = found["critical"]
    assert figure["low"] <= figure["tokens"] <= figure["high"]
    assert measured(store, "critical-batch") == 3
    error = failure(*words, "--tolerance", 50)  # the same branches, none of which costs that much
    assert error["code"] == 31
    assert measured(store, "critical-batch") == 3
    assert failure(*words[:-1], "1,2", "--learning-rate", "1e-3,2e-3")["code"] == 2


def test_coordinates_go_on_at_the_width_where_they_were_stopped(
    text: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalecli.probes.coordinates import run as probing

    real, widths = probing.run, []

    def stopped_at_64(configs: Any, **more: Any) -> Any:
        widths.extend(config.shape.width for config in configs)
        if widths[-1] == 64 and widths.count(64) == 1:
            raise KeyboardInterrupt
        return real(configs, **more)

    monkeypatch.setattr(probing, "run", stopped_at_64)
    words = (
        "probe", "coordinates", "--widths", "16,32,64", "--steps", 4, "--seeds", 2, "--data", text, "--store", store,
        "--sequence-length", 32, "--device", "cpu", "--parametrization", "mup",
    )  # fmt: skip
    assert failure(*words)["code"] == 130
    found = document("probe-coordinates", *words)
    assert widths == [16, 32, 64, 64]
    assert found["widths"] == [16, 32, 64]
    assert found["transfers"] == all(slope["flat"] for slope in found["slopes"])
    assert [(each["precision"], each["step"]) for each in found["formats"]][:2] == [
        ("fp16-unit", 0),
        ("fp8-unit", 0),
    ]
    assert all(0 <= each["below"] <= 1 and each["error"] >= 0 for each in found["formats"])
    assert document("sweep-estimate", *words, "--dry-run")["runs"] == 0


def test_throughput_keeps_prediction_and_measurement_and_says_what_does_not_fit(store: Path) -> None:
    words = (
        "probe",
        "throughput",
        "--params",
        "15k",
        "--sequence-length",
        32,
        "--device",
        "cpu",
        "--store",
        store,
    )
    found = document("probe-throughput", *words, "--micro-batch", 8, "--critical-tokens", 128)
    assert [trial["micro_batch_sequences"] for trial in found["trials"]] == [8]
    assert all(trial["tokens_per_second"] > 0 and trial["predicted_bytes"] > 0 for trial in found["trials"])
    assert found["limits"]["wasted_above"] == 4
    assert measured(store, "throughput") == 1
    error = failure(*words, "--micro-batch", 4096, "--limit", "64MiB")
    assert (error["code"], error["type"]) == (32, "OutOfMemory")
    assert measured(store, "throughput") == 2


def test_memory_is_measured_beside_its_prediction(store: Path) -> None:
    found = document(
        "probe-memory", "probe", "memory", "--layers", 1, "--width", 256, "--vocab", 8192, "--sequence-length", 64,
        "--precision", "fp32", "--device", "cpu", "--store", store,
    )  # fmt: skip
    assert found["method"] == "measured"
    assert abs(found["prediction_error"]) < 0.1
    assert measured(store, "memory") == 1


def test_memory_is_traced_for_shapes_and_for_models_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = document("probe-memory", "probe", "memory", "--params", "1B", "--trace", "--recompute", "full")
    assert abs(found["prediction_error"]) < 1e-3

    (tmp_path / "mine_for_tracing.py").write_text(
        "import torch\nfrom scalecli.probes.task import Task\n\n\n"
        "def small(*, width, depth, seed):\n"
        "    model = torch.nn.Linear(1024, width, bias=False)\n"
        "    batches = lambda split, size, seed: iter([torch.zeros(size, 1024)])\n"
        "    return Task(model=model, losses=lambda m, x: m(x).square().mean(dim=1), batches=batches)\n\n\n"
        "def normed(*, width, depth, seed):\n"
        "    plain = small(width=width, depth=depth, seed=seed)\n"
        "    model = torch.nn.Sequential(plain.model, torch.nn.BatchNorm1d(width))\n"
        "    return Task(model=model, losses=plain.losses, batches=plain.batches)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("probe", "memory", "--model", "mine_for_tracing:small", "--width", 256, "--layers", 1)
    traced = document("probe-memory", *own, "--trace", "--optimizer-impl", "loop", "--precision", "fp32")
    assert traced["peak"]["bytes"] >= 4 * 4 * 1024 * 256  # weight, gradient and two moments
    assert traced["predicted_bytes"] is None
    assert "warnings" not in traced
    few = ("--width", 256, "--layers", 1, "--trace", "--micro-batch", 2)
    normed = document("probe-memory", "probe", "memory", "--model", "mine_for_tracing:normed", *few)
    assert [warning["code"] for warning in normed["warnings"]] == ["W-BATCH-NORM"]
    assert failure(*own)["code"] == 2
    missing = ("--model", "mine_for_tracing:none", "--width", 8, "--layers", 2)
    assert failure("probe", "memory", *missing, "--trace")["code"] == 30
    assert failure("probe", "memory", *missing[:2], "--trace")["code"] == 2


def test_memory_is_calibrated_for_a_device_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALECLI_STATE", str(tmp_path))
    monkeypatch.setattr("scalecli.probes.memory.calibrate.CPU_SIZES", ((1, 128, 32), (1, 256, 32)))
    described = tmp_path / "mine.toml"
    described.write_text("[mine]\nmemory_bytes = 8589934592\npeak_flops = { fp32 = 1e11 }\n")
    on_mine = ("--accelerator", "mine", "--accelerators", described)
    plan = ("memory", "--layers", 2, "--width", 256, "--precision", "fp32", *on_mine)
    assert "W-UNCALIBRATED" in {warning["code"] for warning in document("memory", *plan)["warnings"]}
    found = document(
        "memory-calibration", "memory", "--calibrate", "--precision", "fp32", "--device", "cpu", *on_mine
    )
    assert len(found["comparisons"]) == 2
    assert found["overhead"]["calibrated"]
    assert "W-UNCALIBRATED" not in {warning["code"] for warning in document("memory", *plan)["warnings"]}
    assert failure("memory", "--calibrate")["code"] == 2


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "sweep",
        "noise",
        "critical-batch",
        "lr",
        "curvature",
        "stability",
        "throughput",
        "memory",
        "coordinates",
    ],
)
def test_every_probe_has_an_example_and_a_dry_run(command: str) -> None:
    shown = run("probe", command, "--help").stdout
    assert f"scalecli probe {command}" in shown
    assert "--dry-run" in shown
