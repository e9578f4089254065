"""The memory part of a plan: keys, splitting the batch, what fits and what does not."""

from pathlib import Path

import pytest

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.overhead import UNCALIBRATED, Comparison, Overhead, fit_overhead
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import accelerator
from scalecli.errors import DataError, DoesNotFit, PlanError
from scalecli.plan.calibration import keep, overhead_of
from scalecli.plan.document import MemoryPart
from scalecli.plan.memory import MemoryPlan, plan_memory, split_batch
from scalecli.plan.step.conditions import DRIVE_BANDWIDTH, Conditions


@pytest.fixture(autouse=True)
def no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrations of this machine must not change what is tested."""
    monkeypatch.setenv("SCALECLI_STATE", str(tmp_path / "empty"))


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


def test_the_cheapest_change_that_lowers_the_peak_is_named() -> None:
    small = ModelShape(layers=12, width=768, ffn=2048, heads=12, kv_heads=12, vocab=50304)
    fused = plan_memory(
        small, sequence_length=1024, micro_batch_sequences=16, recipe=Recipe(optimizer_impl="fused")
    )
    assert fused.part["peak"]["moment"] == "loss"
    assert fused.reliefs[0].change == "--logits chunked"
    assert fused.reliefs[0].saves_bytes / 2**30 == pytest.approx(15.42 - 7.46, abs=0.02)
    foreach = plan_memory(LLAMA_7B, sequence_length=2048)
    assert foreach.reliefs[0].change == "--optimizer-impl fused"
    assert foreach.reliefs[0].moment == "backward"


def test_what_does_not_fit_names_a_change_that_would() -> None:
    plan = plan_memory(
        LLAMA_7B,
        sequence_length=2048,
        micro_batch_sequences=4,
        recipe=Recipe(optimizer_impl="fused"),
        accelerator=H100,
    )
    warning = dict(plan.warnings)["W-DOES-NOT-FIT"]
    assert "--micro-batch 2 would make it fit" in warning


def test_search_that_finds_nothing_says_which_bytes_and_what_would_help() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan_memory(
            LLAMA_7B, sequence_length=262144, batch_sequences=8, accelerator=accelerator("l4"), search=True,
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


def test_the_record_is_used_without_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALECLI_STATE", str(tmp_path))
    keep([_comparison(10**9, 3 * 10**9), _comparison(2 * 10**9, 4 * 10**9)], "h100-80g")
    plan = plan_memory(LLAMA_7B, sequence_length=2048, accelerator=H100)
    assert plan.part["per_device_bytes"] - plan.part["peak"]["bytes"] == 2 * 10**9
    assert plan.error_bytes == 0
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


def test_data_parallel_ranks_fill_the_devices() -> None:
    plan = plan_memory(LLAMA_7B, sequence_length=2048, layout=Layout(tp=4), accelerator=H100, count=16)
    assert plan.part["data_parallel"] == 4
    assert plan.part["sharding"] == "ddp"
    with pytest.raises(PlanError, match="do not divide 6 devices"):
        plan_memory(LLAMA_7B, sequence_length=2048, layout=Layout(tp=4), accelerator=H100, count=6)
    with pytest.raises(PlanError, match="layout is for 8 devices"):
        plan_memory(
            LLAMA_7B,
            sequence_length=2048,
            layout=Layout(tp=4, dp=2, sharding="ddp"),
            accelerator=H100,
            count=16,
        )


def test_offloading_names_the_bandwidth_that_hides_it() -> None:
    plan = plan_memory(LLAMA_7B, sequence_length=2048, layout=Layout(offload="optimizer"), accelerator=H100)
    assert plan.part["host_bytes"] > 4 * LLAMA_7B.params
    assert any(code == "W-OFFLOAD" and "GB/s" in message for code, message in plan.warnings)


def test_drives_are_slower_than_the_host_and_pass_what_the_optimizer_steps() -> None:
    def plan(offload_to: str, **links: float) -> MemoryPlan:
        return plan_memory(
            LLAMA_7B, sequence_length=2048, accelerator=H100, conditions=Conditions(**links),  # type: ignore[arg-type]
            layout=Layout(offload="optimizer", offload_to=offload_to),  # type: ignore[arg-type]
        )  # fmt: skip

    host, drives, faster = plan("cpu"), plan("nvme"), plan("nvme", drive=50e9)
    assert not any(part["drive_traffic"] for part in host.part["offloaded"])
    states = next(part for part in drives.part["offloaded"] if part["part"] == "optimizer states")
    assert states["drive_traffic"] == 2 * states["bytes"]
    seconds = [each.chosen.timed.seconds for each in (host, drives, faster)]
    # All but what hides behind computation, which is less than the step with the host.
    assert states["drive_traffic"] / DRIVE_BANDWIDTH - seconds[0] < seconds[1]
    assert seconds[1] < states["drive_traffic"] / DRIVE_BANDWIDTH + seconds[0]
    assert seconds[2] < seconds[1]
    assert any("to the drives" in message for code, message in drives.warnings if code == "W-OFFLOAD")
    with pytest.raises(PlanError, match="move nothing"):
        Conditions(host=0)


def test_searching_without_a_device_or_without_devices_is_refused() -> None:
    with pytest.raises(PlanError, match="needs to know the device"):
        plan_memory(LLAMA_7B, sequence_length=2048, search=True)
    with pytest.raises(PlanError, match="0 devices"):
        plan_memory(LLAMA_7B, sequence_length=2048, accelerator=H100, count=0)
    with pytest.raises(PlanError, match="no layout gives each of 37 devices") as caught:
        plan_memory(
            LLAMA_7B, sequence_length=2047, batch_sequences=1, accelerator=H100, count=37, search=True
        )
    assert "multiple of the number of devices" in caught.value.hint


def _comparison(predicted: int, used: int, version: str = "2.13") -> Comparison:
    return Comparison(
        device="gpu", version=version, predicted_bytes=predicted, allocated_bytes=predicted,
        reserved_bytes=used, used_bytes=used,
    )  # fmt: skip


def test_overhead_is_the_line_through_two_steps() -> None:
    fitted = fit_overhead([_comparison(1000, 1600), _comparison(2000, 2700)])
    assert fitted.bytes(3000) == 500 + 300
    assert fitted.error(3000) == 300  # nothing says yet that the share is right


def test_a_third_step_says_how_good_the_line_is() -> None:
    fitted = fit_overhead([_comparison(1000, 1600), _comparison(2000, 2700), _comparison(3000, 3830)])
    assert fitted.error(10**9) == pytest.approx(10, abs=1)


def test_the_record_is_the_calibration(tmp_path: Path) -> None:
    file = tmp_path / "state" / "memory.jsonl"
    assert overhead_of("h100-80g", file) is UNCALIBRATED
    keep([_comparison(1000, 1600, "2.12"), _comparison(2000, 2700, "2.12")], "h100-80g", file)
    keep([_comparison(1000, 1500), _comparison(2000, 2500), _comparison(9, 9)], "l4", file)
    assert overhead_of("h100-80g", file).bytes(1000) == 600
    assert "2.12" in overhead_of("h100-80g", file).origin
    keep([_comparison(1000, 1700)], "h100-80g", file)  # one step with a newer version settles nothing yet
    assert overhead_of("h100-80g", file).bytes(1000) == 600
    file.write_text(file.read_text() + "not json\n")
    with pytest.raises(DataError, match=r"memory\.jsonl:7"):
        overhead_of("h100-80g", file)


def test_steps_of_one_size_or_of_two_devices_calibrate_nothing() -> None:
    with pytest.raises(PlanError, match="calibrate nothing"):
        fit_overhead([_comparison(1000, 1600), _comparison(1000, 1700)])
    with pytest.raises(PlanError, match="calibrate nothing"):
        fit_overhead([_comparison(1000, 1600), _comparison(2000, 1700, "2.14")])
