"""What bears on running a plan on its devices: interruptions, published utilisations, floors, sizes, links."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scalecli.accounting.kernels import tokens_to_compute
from scalecli.data.catalogue import accelerator
from scalecli.data.catalogue.utilisations import PublishedStep, published_steps
from scalecli.plan.dimensions import odd_head, roundings
from scalecli.plan.expense import note_checkpoints, note_energy
from scalecli.plan.goodput import PUBLISHED_DEVICE_SECONDS, plan_checkpoints
from scalecli.plan.memory import MemoryPlan
from scalecli.plan.notes import Notes
from scalecli.plan.replica_remarks import remark_on_replicas
from scalecli.plan.speed import Speed
from scalecli.plan.step.engine import engine_of, kernel_efficiency
from scalecli.plan.step.reduction import reductions
from scalecli.plan.target import Target

ALIGNMENT = "anthony2024"
MODEL = "by the step-time model"
# Published steps that are shown beside the plan's own.
NEIGHBOURS = 2
# Share of the stages that a partial pipeline is shown for.
SKIPPED = 0.25
PLACEMENT = {
    "tensor_parallel": "tensor", "context_parallel": "context", "expert_parallel": "expert", "data_parallel": "data",
    "pipeline_parallel": "pipeline",
}  # fmt: skip


def remark_on_devices(target: Target, speed: Speed, layout: MemoryPlan, notes: Notes) -> None:
    """All of it, for the layout that is run."""
    economy, chosen = speed.economy, layout.chosen
    if economy.measured_mfu is not None:
        notes.line("MFU", economy.measured_mfu, unit="1", rule="as measured", source="you")
    checkpoints = plan_checkpoints(
        target.shape, chosen.recipe, chosen.layout, sequence_length=target.sequence_length,
        device_seconds=economy.device_seconds or PUBLISHED_DEVICE_SECONDS,
    )  # fmt: skip
    note_checkpoints(checkpoints, economy, notes)
    note_energy(chosen.timed, target.count, speed.fleet.device.power_watts, notes)
    _note_published(target, speed, notes)
    _note_communication(layout, speed, notes)
    _note_placement(layout, speed, notes)
    _note_skipping(layout, notes)
    _note_floor(target, layout, speed, notes)
    _note_dimensions(target, layout, notes)
    remark_on_replicas(target, speed, layout, notes)


def _note_published(target: Target, speed: Speed, notes: Notes) -> None:
    """What others reached on devices of the same kind, nearest in size and number of devices."""
    for step in _nearest(target, speed):
        count = "attention counted fully" if step.attention == "full" else "causal attention"
        again = "" if step.counted == "model" else ", recomputation counted"
        notes.line(
            "MFU, published", step.utilisation, unit="1",
            rule=f"{step.shape.params / 1e9:.3g}B parameters on {step.layout.devices:,} × {step.accelerator}, {count}"
            f"{again}; {step.where}",
            source=step.source, no_interval="as printed",
        )  # fmt: skip


def _nearest(target: Target, speed: Speed) -> list[PublishedStep]:
    architectures = {kind.accelerator.architecture for kind in speed.fleet.kinds}
    same = [step for step in published_steps() if accelerator(step.accelerator).architecture in architectures]

    def distance(step: PublishedStep) -> float:
        size = math.log(step.shape.params / target.shape.params)
        return size**2 + math.log(step.layout.devices / target.count) ** 2

    return sorted(same, key=distance)[:NEIGHBOURS]


def _note_communication(layout: MemoryPlan, speed: Speed, notes: Notes) -> None:
    """The share of the step that waits for links, and what was assumed to hide."""
    step = layout.chosen.timed
    if not step.exchanges:
        return
    overlap = speed.conditions.overlap
    assumed = ", ".join(
        f"{name} {getattr(overlap, name):g}" for name in ("tensor", "expert", "pipeline", "context", "data")
    )
    notes.line(
        "exposed communication", step.communication / step.seconds, unit="1", source="pati2024",
        rule=f"share of the step; shares that hide: {assumed} (--assume)", no_interval=MODEL,
    )  # fmt: skip
    by_name = {each.name: each for each in step.exchanges}
    ring = by_name.get("context-parallel")
    if ring is not None:
        notes.line(
            "context-parallel communication over computation", ring.seconds / ring.beside, unit="1",
            rule="above 1 the ring cannot hide, however well it overlaps", source="wang2024tokenring",
            warning="the ring does not hide: longer parts or fewer ranks" if ring.seconds > ring.beside else None,
            no_interval=MODEL,
        )  # fmt: skip
    if "data-parallel" in by_name:
        _note_reduction(by_name["data-parallel"].ranks, layout, speed, notes)


def _note_reduction(ranks: int, layout: MemoryPlan, speed: Speed, notes: Notes) -> None:
    """Bytes that data-parallel ranks exchange for a weight, and what compressed optimizers would send."""
    whole, used = layout.chosen.recipe.weight_bytes, speed.conditions.reduction
    others = ", ".join(
        f"{name} {each.bytes_per_weight(whole, ranks):.2g}"
        for name, each in reductions().items()
        if each != used
    )
    notes.line(
        "gradient sent for a parameter", used.bytes_per_weight(whole, ranks), unit="bytes",
        rule=f"reduction {used.name}, a step and way, mean over the run; {others} (--assume reduction=NAME)",
        source=used.source or "liu2024lion", no_interval="counted, not estimated",
    )  # fmt: skip


def _note_placement(layout: MemoryPlan, speed: Speed, notes: Notes) -> None:
    """Which ranks are neighbours: those that say most have the nearest links."""
    if speed.fleet.count == 1 or layout.part["devices"]:
        return
    ranks = {said: layout.part[name] for name, said in PLACEMENT.items()}
    order = [f"{said} {count}" for said, count in ranks.items() if count > 1]
    if len(order) > 1 or speed.fleet.count > speed.fleet.device.devices_per_node:
        notes.line(
            "placement", ", then ".join(order), unit="", source="yang2023holmes",
            rule="neighbours first: ranks that say most share the nearest links, pipelines cross the slowest",
        )  # fmt: skip


def _note_skipping(layout: MemoryPlan, notes: Notes) -> None:
    """What a pipeline would take whose micro-batches skip some stages; nothing without a pipeline."""
    step = layout.chosen.timed
    if layout.chosen.layout.pp > 1:
        notes.line(
            "step with stages skipped", step.seconds - SKIPPED * step.computing, unit="s", source="blagoev2025",
            rule=f"were every micro-batch to skip {SKIPPED:.0%} of the stages; up to 8B parameters it did no harm to "
            "convergence; the plan skips none", no_interval=MODEL,
        )  # fmt: skip


def _note_floor(target: Target, layout: MemoryPlan, speed: Speed, notes: Notes) -> None:
    """The batch under which products read weights for longer than they compute."""
    device, chosen = speed.fleet.device, layout.chosen
    engine = engine_of(device, chosen.recipe, kernel_efficiency(device))
    shape, ranks = target.shape, chosen.layout
    each = tokens_to_compute(engine, shape.width, max(1, shape.ffn // ranks.tp))
    each *= shape.num_experts / shape.experts_per_token / ranks.ep  # an expert serves all its ranks
    held = layout.part["micro_batch_sequences"] * target.sequence_length / ranks.cp
    least = each * ranks.dp * ranks.cp * (target.replicas or 1)
    notes.line(
        "least tokens of a step", least if math.isfinite(least) else None, unit="tokens",
        rule=f"{each:.3g} tokens a micro-batch of every data-parallel rank: fewer take as long, reading the weights",
        source="zhang2025ttt", no_interval="from peaks and bandwidth",
    )  # fmt: skip
    if held < each:
        notes.warn(
            "W-BELOW-HARDWARE-FLOOR",
            f"a micro-batch has {held:.3g} tokens on each {device.name}, whose products compute from {each:.3g} tokens "
            "on: a larger micro-batch is faster for each token",
        )


def _note_dimensions(target: Target, layout: MemoryPlan, notes: Notes) -> None:
    """Sizes that kernels do not like."""
    chosen = layout.chosen
    said = [str(each) for each in roundings(target.shape, chosen.recipe, chosen.layout.tp)]
    said += _odd_heads(target)
    if said:
        notes.warn(
            "W-KERNEL-DIMENSIONS",
            f"not aligned to what matrix units read at once ({ALIGNMENT}): {', '.join(said)}",
        )


def _odd_heads(target: Target) -> Iterator[str]:
    size = odd_head(target.shape)
    if size is not None:
        yield f"no attention kernel is made for heads of {size}"
