"""What bears on a model with experts: what a token sends, how long ranks wait for it, and what its balance is over."""

from __future__ import annotations

from scalecli.plan.memory import MemoryPlan
from scalecli.plan.notes import Notes
from scalecli.plan.step.conditions import Conditions
from scalecli.plan.steptime import StepTime
from scalecli.plan.target import Target

# Share of an expert layer's time that all-to-all took (Cai et al., 2404.05019, figure 1): eight A30 on PCIe, and eight
# A800 on NVLink.
PUBLISHED_SHARES = {"PCIe": 0.60, "NVLink": 0.15}
# 600B parameters on 2,048 cores of TPU v3 in four days (Lepikhin et al., GShard, 2006.16668, abstract).
GSHARD_CORE_DAYS = 4 * 2048
BALANCE = "qiu2025"


def remark_on_experts(
    target: Target, sequences: int, conditions: Conditions, layout: MemoryPlan, notes: Notes
) -> None:
    """Nothing for dense models."""
    shape = target.shape
    if shape.num_experts == 1:
        return
    recipe, step = layout.chosen.recipe, layout.chosen.step
    width = conditions.dispatch_width or shape.width
    sent = shape.experts_per_token * recipe.expert_capacity * width * recipe.compute_bytes
    notes.line(
        "sent to experts by a token", sent, unit="bytes", source="jin2025",
        rule=f"experts a token × capacity {recipe.expert_capacity:g} × width {width} × {recipe.compute_bytes} bytes, a "
        "layer and way; --assume dispatch_width narrows it", no_interval="counted, not estimated",
    )  # fmt: skip
    if step is not None:
        _note_all_to_all(step, layout.chosen.layout.ep, notes)
    notes.line(
        "device-days, published", GSHARD_CORE_DAYS, unit="core-days", source="lepikhin2020", no_interval="as printed",
        rule="600B parameters, 2,048 cores of TPU v3 for 4 days: what conditional computation cost at its first size",
    )  # fmt: skip
    _note_statistics(target, sequences, layout, notes)
    notes.warn(
        "W-DENSE-RULES",
        f"published rules of batch and learning rate were measured on dense models; here they are asked with all "
        f"{shape.params:.3g} parameters, of which a token passes {shape.params_active:.3g}",
    )


def _note_all_to_all(step: StepTime, ranks: int, notes: Notes) -> None:
    shares = ", ".join(f"{share:.0%} over {link}" for link, share in PUBLISHED_SHARES.items())
    notes.line(
        "all-to-all share of the step", step.exposed("expert-parallel") / step.seconds, unit="1", source="cai2024",
        rule=f"over {ranks} expert-parallel ranks, near and far links apart; published: {shares} of an expert layer",
        no_interval="by the step-time model",
    )  # fmt: skip


def _note_statistics(target: Target, sequences: int, layout: MemoryPlan, notes: Notes) -> None:
    """A loss over a micro-batch is another one than over the batch, and the layout decides how large that is."""
    micro = layout.part["micro_batch_sequences"]
    notes.warn(
        "W-BATCH-STATISTICS",
        f"a balancing loss over each micro-batch sees {micro * target.sequence_length} tokens of {micro} sequences, "
        f"over the batch {sequences * target.sequence_length} tokens of {sequences}: within few sequences it keeps "
        f"experts from specialising; sum expert counts over ranks and accumulation ({BALANCE}). The same goes for "
        "batch norm",
    )
