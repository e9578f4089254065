"""Changes that lower the peak of memory, from the cheapest in time to the dearest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from scalecli.accounting.memory import Layout, Recipe, estimate_memory
from scalecli.accounting.shape import ModelShape

WORTH_SAYING = 0.01  # share of the peak


@dataclass(frozen=True, slots=True)
class Relief:
    """One change and what it does to the peak."""

    change: str
    """As an option of the command line."""
    saves_bytes: int
    moment: str
    """When the peak is after it."""


def reliefs(
    shape: ModelShape, recipe: Recipe, layout: Layout, *, micro_batch_sequences: int, sequence_length: int
) -> list[Relief]:
    """Every single change that lowers the peak by more than a hundredth, cheapest first."""

    def peak(recipe: Recipe, layout: Layout, sequences: int) -> tuple[int, str]:
        found = estimate_memory(
            shape, recipe, layout, micro_batch_sequences=sequences, sequence_length=sequence_length
        )
        return found.peak_bytes, found.moment

    before, _ = peak(recipe, layout, micro_batch_sequences)
    found = []
    for change, changed_recipe, changed_layout, sequences in _changes(recipe, layout, micro_batch_sequences):
        after, moment = peak(changed_recipe, changed_layout, sequences)
        if before - after > WORTH_SAYING * before:
            found.append(Relief(change, before - after, moment))
    if not found and layout.offload == "none":
        after, moment = peak(recipe, replace(layout, offload="optimizer"), micro_batch_sequences)
        if after < before:
            found.append(Relief("--offload optimizer", before - after, moment))
    return found


def _changes(recipe: Recipe, layout: Layout, sequences: int) -> Iterator[tuple[str, Recipe, Layout, int]]:
    """In the order of what they cost: nothing, a little of the loss, communication, recomputation."""
    if recipe.optimizer_impl != "fused":
        yield "--optimizer-impl fused", replace(recipe, optimizer_impl="fused"), layout, sequences
    if recipe.logits == "full":
        yield "--logits chunked", replace(recipe, logits="chunked"), layout, sequences
    if layout.sharding in ("none", "ddp") and layout.dp > 1:
        yield "--sharding zero1", recipe, replace(layout, sharding="zero1"), sequences
    if sequences > 1 and sequences % 2 == 0:
        halved = replace(recipe, accumulation=2 * recipe.accumulation)
        yield f"--micro-batch {sequences // 2}", halved, layout, sequences // 2
    if recipe.recompute == "none":
        yield "--recompute selective", replace(recipe, recompute="selective"), layout, sequences
    if layout.sharding != "zero3" and layout.dp > 1:
        yield "--sharding zero3", recipe, replace(layout, sharding="zero3"), sequences
    if recipe.recompute != "full":
        yield "--recompute full", replace(recipe, recompute="full"), layout, sequences
