"""Every term of a memory plan from the command line."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from typer.testing import CliRunner

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.recipe import CHOICES
from scalecli.accounting.shape import ModelShape
from scalecli.cli import step
from scalecli.cli.app import app

SMALL = "--layers 4 --width 256 --heads 8 --vocab 1000 --sequence-length 128 --json"


def document(words: str) -> Any:
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("group", "record", "elsewhere"),
    [
        (step.RECIPE, Recipe(), set()),
        (step.LAYOUT, Layout(), {"dp", "sharding"}),
        (
            step.BLOCKS,
            ModelShape(layers=1, width=2, ffn=2, heads=1, kv_heads=1, vocab=2),
            {"layers", "width", "ffn", "heads", "kv_heads", "vocab"},
        ),
    ],
    ids=["recipe", "layout", "blocks"],
)
def test_every_field_has_an_option_with_its_default(
    group: tuple[step.Setting, ...], record: Any, elsewhere: set[str]
) -> None:
    assert {setting.field for setting in group} | elsewhere == {field.name for field in fields(record)}
    assert all(getattr(record, setting.field) == setting.default for setting in group)


def test_options_offer_what_a_recipe_knows() -> None:
    for setting in step.RECIPE:
        if setting.field in CHOICES:
            (declared,) = setting.annotation.__metadata__
            assert tuple(declared.metavar.split("|")) == CHOICES[setting.field]


@pytest.mark.parametrize(
    "wishes",
    [
        "--experts 4 --experts-per-token 2 --capacity-factor 1.5 --ep 2 --optimizer lamb",
        "--tp 4 --pp 2 --accumulation 4 --recompute selective --norm layer --activation gelu",
        "--cp 2 --attention flash --tied --logits chunked --logit-chunks 3",
        "--lora-rank 8 --lora-targets all --base-bits 4 --optimizer-impl fused",
        "--tuning difffit --attention stored --dropout 0.1 --norm-kernel decomposed",
        "--precision fp8-lm --master-weights --optimizer lion",
        "--recompute full --sequence-chunks 4 --qk-norm --gradients fp32",
        "--saved-compression 4 --contrastive-pairs 512 --contrastive-tile 64",
        "--offload activations --offload-layers 2 --sampled-rows 0.3 --moments fp32",
    ],
)
def test_what_is_wished_is_counted_and_traced_alike(wishes: str) -> None:
    found = document(f"probe memory {SMALL} --trace {wishes}")
    assert found["predicted_bytes"] == pytest.approx(found["peak"]["bytes"], rel=1e-3)


def test_a_plan_says_what_lies_in_the_host_and_what_hides_it() -> None:
    words = f"memory {SMALL} --accelerator h100-80g --offload optimizer+activations --ema-copies 1"
    here = document(words)
    assert {"optimizer states", "saved activations"} <= set(here["host_terms"])
    assert here["host_bytes"] == sum(here["host_terms"].values())
    assert {part["part"] for part in here["offloaded"]} >= {"gradients", "saved activations"}
    assert any(term["name"] == "averaged weights" for term in here["terms"])
    assert any("GB/s a device" in warning["message"] for warning in here["warnings"])
    assert set(document(f"{words} --offload-to nvme")["host_terms"]) <= {
        "staging buffers",
        "rounding of pinned memory",
    }


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ("--lora-rank 16", "divide adapters by √16 = 4"),
        ("--precision fp8-unit", "static scales"),
        ("--precision fp16-unit", "blake2023"),
        ("--sampled-rows 0.3", "add noise"),
        ("--saved-compression 4", "measured sensitivity"),
        ("--micro-batch 4096 --accelerator l4", "wider, shallower"),
        ("--micro-batch 4096 --accelerator h100-80g --offload activations", "--offload-layers"),
    ],
)
def test_what_saving_memory_does_besides_is_said_with_its_source(wishes: str, said: str) -> None:
    warnings = document(f"memory {SMALL} {wishes}")["warnings"]
    assert any(said in warning["message"] for warning in warnings)


@pytest.mark.parametrize(
    "wishes", ["--offload optimizer", "--pp 2 --schedule interleaved --virtual-stages 2"]
)
def test_what_is_only_counted_says_so(wishes: str) -> None:
    result = CliRunner().invoke(app, f"probe memory {SMALL} --trace {wishes}".split())
    assert result.exit_code == 40
    assert "only counted" in result.output


def test_layouts_are_traced_not_measured() -> None:
    result = CliRunner().invoke(app, f"probe memory {SMALL} --tp 2".split())
    assert result.exit_code == 2
