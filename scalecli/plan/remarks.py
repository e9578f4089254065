"""Findings that bear on a plan's batch, each said with its source: how it is made, what it costs beside the loss."""

from __future__ import annotations

import math

from scalecli.data.catalogue import published_law
from scalecli.plan.evidence import Evidence
from scalecli.plan.folklore import WARNING
from scalecli.plan.memory import MemoryPlan
from scalecli.plan.notes import Notes
from scalecli.plan.target import Target

WEIGHT_NORM = "gupta2021"
EARLY_SIGNS = "pareja2024"


def note_synchronisations(target: Target, steps: int, layout: MemoryPlan, notes: Notes) -> None:
    """How the batch is put together, and how often the replicas exchange what they learned."""
    micro, accumulation, ranks = (
        layout.part[key] for key in ("micro_batch_sequences", "accumulation", "data_parallel")
    )
    parts = f"micro-batch {micro} × accumulation {accumulation} × data parallel {ranks}"
    if target.replicas is not None and target.accelerator is not None:
        parts += f" × replicas {target.replicas}"
    notes.line(
        "batch put together", parts, unit="",
        rule="a larger batch is a larger micro-batch while it pays, then accumulation, then more replicas",
        source="kutuzov2025",
    )  # fmt: skip
    if target.replicas is not None:
        every = target.sync_every
        rule, source = (
            f"one every {every} of {steps} steps; data-parallel training has {steps}",
            "charles2025",
        )
    elif ranks > 1:
        every, rule, source = 1, "one a step; --algo diloco has fewer", "charles2025"
    else:
        return
    notes.line(
        "synchronisations", math.ceil(steps / every), unit="1", rule=rule, source=source,
        no_interval="counted, not estimated",
    )  # fmt: skip


def note_forgetting(batch_tokens: int, notes: Notes) -> None:
    """The loss does not see what is forgotten: small batches were measured to forget facts faster."""
    record = published_law("chang-forgetting")
    smallest = record.values["small"]
    if batch_tokens <= smallest:
        notes.warn(
            "W-SMALL-BATCH-FORGETS",
            f"at {batch_tokens:.3g} tokens the loss is not the whole story: after a fact was seen, recall decays as a "
            f"power of the steps, and faster at {smallest:.3g} tokens than at {record.values['large']:.3g} "
            f"({record.source}); where facts matter, fit recall over steps as well",
        )


def note_beyond_critical(known: Evidence, batch_tokens: int, notes: Notes) -> None:
    """Past the critical batch a larger one needs another method, not another rate."""
    if known.critical is None or batch_tokens <= known.critical.tokens.value:
        return
    vision = published_law("conadv-batch")
    notes.warn(
        "W-BEYOND-CRITICAL-METHODS",
        f"a batch beyond the critical one of {known.optimizer} takes another method, not another rate: layer-wise "
        f"trust ratios (--optimizer lamb, lars); in vision adversarial examples, to {vision.values['images']:g} images "
        f"({vision.source}); in vision and recommenders weights of fixed norm that attenuate logits ({WEIGHT_NORM})",
    )


def note_video_size(target: Target, notes: Notes) -> None:
    """The best size of video diffusion transformers for the target's compute, and what a smaller one costs."""
    if target.workload != "video-diffusion":
        return
    record = published_law("video-dit-params")
    notes.line(
        "best size for this compute", record.predict({"flops": target.flops}), unit="parameters",
        rule=f"{record.formula}; one 30 % smaller loses under 1 %, which pays where the model is run often",
        source=record.source, warning=WARNING, no_interval="the paper states none",
    )  # fmt: skip


def note_early_signs(target: Target, notes: Notes) -> None:
    """Which runs of a sweep to give up early: of fine-tunes not those of high loss, as of trainings from scratch."""
    if target.workload == "fine-tuning":
        notes.line(
            "runs to give up early", "those of larger gradients and lower loss than their rivals", unit="",
            rule="small gradients and high losses early in a fine-tune went with the best models at its end",
            source=EARLY_SIGNS,
        )  # fmt: skip
