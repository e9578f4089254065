"""Measured speeds: what becomes of them, and that they can be measured here."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.data.catalogue import accelerator, accelerators
from scalecli.data.catalogue.devices import measured_file
from scalecli.errors import DataError, ProbeError
from scalecli.export.schemas import document_schema
from scalecli.probes.speed import run as measuring
from scalecli.probes.speed.collective import bus_bandwidth
from scalecli.probes.speed.estimate import (
    Product,
    Speeds,
    accelerator_entry,
    model_errors,
    toml_entry,
    training_share,
    typical_error,
)

PEAK = 1e12


def product(size: int, share: float, dtype: str = "bfloat16") -> Product:
    return Product(dtype=dtype, m=size, n=size, k=size, seconds=2 * size**3 / (share * PEAK))


SPEEDS = Speeds(
    device="test", products=(product(64, 0.1), product(512, 0.9), product(1024, 1.0), product(1024, 0.25, "float32")),
    memory_bandwidth=1e10, launch_seconds=1e-6, memory_bytes=2**30, devices=4, collective_bandwidth=1e9,
)  # fmt: skip


def test_small_products_do_not_count_for_training() -> None:
    assert training_share(SPEEDS, "bfloat16") == pytest.approx((1 + 1 / 8) / (1 + 1 / 8 / 0.9))


def test_a_measured_device_is_an_accelerator(tmp_path: Path) -> None:
    entry = accelerator_entry(SPEEDS, None)
    file = tmp_path / "mine.toml"
    file.write_text(toml_entry("mine", entry))
    found = accelerator("mine", file)
    assert found.peak_flops == {"bf16": pytest.approx(PEAK), "fp32": pytest.approx(PEAK / 4)}
    assert found.kernel_efficiency == pytest.approx(training_share(SPEEDS, "bfloat16"), rel=1e-4)
    assert (found.devices_per_node, found.link_bandwidth) == (4, 1e9)
    assert found.launch_seconds == 1e-6


def test_a_known_device_keeps_its_data_sheet() -> None:
    known = accelerator("a100-80g")
    entry = accelerator_entry(SPEEDS, known)
    assert entry["peak_flops"] == dict(known.peak_flops)
    assert entry["kernel_efficiency"] == pytest.approx(
        training_share(SPEEDS, "bfloat16") * PEAK / known.peak_flops["bf16"]
    )
    with pytest.raises(ProbeError, match="no bf16 peak"):
        accelerator_entry(SPEEDS, accelerator("m1-max"))


def test_the_time_model_is_exact_for_the_fastest_product() -> None:
    errors = dict(model_errors(SPEEDS))
    assert errors[SPEEDS.products[2]] == pytest.approx(0)
    assert typical_error([0.1, -1 / 11]) == pytest.approx(0.1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sizes that take no time, and a state folder of its own."""
    monkeypatch.setenv("SCALECLI_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(measuring, "SIZES", {"cpu": (32, 64, 128)})
    monkeypatch.setattr(measuring, "COPIED_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(measuring, "LAUNCHES", 50)


@pytest.mark.usefixtures("small")
def test_this_machine_can_be_planned_for_once_it_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    done = CliRunner().invoke(
        app, ["probe", "device", "--device", "cpu", "--no-collectives", "--name", "mine", "--out", str(out), "--json"]
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    Draft202012Validator(document_schema("probe-device")).validate(document)
    assert len(document["products"]) in (6, 12)
    assert "mine" in accelerators()
    assert tomllib.loads(out.read_text()) == tomllib.loads(Path(document["record"]).read_text())
    planned = CliRunner().invoke(
        app, ["memory", "--params", "1M", "--vocab", "256", "--sequence-length", "64", "--accelerator", "mine",
              "--precision", "fp32", "--json"],
    )  # fmt: skip
    assert planned.exit_code == 0, planned.stderr
    assert json.loads(planned.stdout)["step"]["kernel_efficiency"]["source"] == "you"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_names_that_are_no_files(name: str) -> None:
    with pytest.raises(DataError, match="cannot be the name"):
        measured_file(name)


def test_two_processes_can_sum() -> None:
    found = bus_bandwidth("cpu")
    assert found is not None
    assert 1e6 < found < 1e12


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_faster_than_its_host() -> None:
    speeds = measuring.run("cuda")
    assert speeds.best("bfloat16") > 1e12
    assert speeds.multiprocessors
    assert speeds.host_bandwidth is not None
    assert speeds.memory_bandwidth > speeds.host_bandwidth
