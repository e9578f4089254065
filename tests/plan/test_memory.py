"""The memory part of a plan: keys, splitting the batch, what fits and what does not."""

import pytest

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.overhead import Overhead
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import accelerator
from scalecli.errors import DoesNotFit, PlanError
from scalecli.plan.document import MemoryPart
from scalecli.plan.memory import plan_memory, split_batch

LLAMA_7B = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)
H100 = accelerator("h100-80g")


def test_part_has_the_keys_of_the_document_and_its_terms_add_up() -> None:
    plan = plan_memory(LLAMA_7B, sequence_length=2048, micro_batch_sequences=1, accelerator=H100)
    part = MemoryPart.model_validate(plan.part)
    assert sum(term.bytes for term in part.terms) == part.per_device_bytes
    assert part.per_device_bytes > part.peak.bytes
    assert part.headroom_bytes == H100.memory_bytes - part.per_device_bytes
    assert part.fits
    assert {moment for term in part.terms for moment in term.moments} <= {
        "forward",
        "loss",
        "backward",
        "step",
    }


def test_without_an_accelerator_nothing_is_known_to_fit() -> None:
    plan = plan_memory(LLAMA_7B, sequence_length=2048, micro_batch_sequences=1)
    assert plan.part["fits"] is None
    assert plan.part["per_device_bytes"] == plan.part["peak"]["bytes"]
    assert plan.warnings[0][0] == "W-NO-ACCELERATOR"


def test_a_wished_layout_that_does_not_fit_is_reported_not_refused() -> None:
    plan = plan_memory(
        LLAMA_7B, sequence_length=2048, micro_batch_sequences=8, accelerator=accelerator("rtx4090")
    )
    assert plan.part["fits"] is False
    assert plan.part["headroom_bytes"] < 0
    assert "W-DOES-NOT-FIT" in {code for code, _ in plan.warnings}


def test_search_that_finds_nothing_says_which_bytes_and_what_would_help() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan_memory(
            LLAMA_7B, sequence_length=2048, batch_sequences=8, accelerator=accelerator("l4"), search=True,
            recipe=Recipe(precision="fp32"),
        )  # fmt: skip
    assert caught.value.budget["weights"] > 0
    assert "too much" in caught.value.message
    assert caught.value.hint


def test_a_calibrated_overhead_replaces_the_assumed_one() -> None:
    measured = Overhead(
        fixed_bytes=10**9, fraction=0.0, error_bytes=10**7, error_fraction=0.0, calibrated=True, origin="here"
    )
    plan = plan_memory(
        LLAMA_7B, sequence_length=2048, micro_batch_sequences=1, accelerator=H100, overhead=measured
    )
    assert plan.part["per_device_bytes"] - plan.part["peak"]["bytes"] == 10**9
    assert "W-UNCALIBRATED" not in {code for code, _ in plan.warnings}


def test_batch_is_micro_batch_times_accumulation_times_ranks() -> None:
    layout = Layout(sharding="ddp", dp=4)
    assert split_batch(64, 2, layout, Recipe()) == (2, 8)
    assert split_batch(None, 3, layout, Recipe(accumulation=5)) == (3, 5)


@pytest.mark.parametrize(
    ("batch", "micro_batch", "dp", "message"),
    [
        (2, None, 4, "2 sequences cannot feed 4"),
        (10, None, 4, "not a multiple of 4 ranks"),
        (8, 3, 2, "not a multiple of 2 ranks × 3"),
        (8, 0, 2, "micro-batch of 0"),
    ],
)
def test_batches_that_cannot_be_split(batch: int, micro_batch: int | None, dp: int, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        split_batch(batch, micro_batch, Layout(sharding="ddp", dp=dp), Recipe())


def test_searching_without_a_device_or_without_devices_is_refused() -> None:
    with pytest.raises(PlanError, match="needs to know the device"):
        plan_memory(LLAMA_7B, sequence_length=2048, search=True)
    with pytest.raises(PlanError, match="0 devices"):
        plan_memory(LLAMA_7B, sequence_length=2048, accelerator=H100, count=0)
    with pytest.raises(PlanError, match="no layout gives each of 7 devices") as caught:
        plan_memory(LLAMA_7B, sequence_length=2047, batch_sequences=1, accelerator=H100, count=7, search=True)
    assert "multiple of the number of devices" in caught.value.hint
