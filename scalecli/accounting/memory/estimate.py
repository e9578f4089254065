"""Bytes on one device in each moment of a training step, term by term."""

from __future__ import annotations

from dataclasses import dataclass

from scalecli.accounting.memory import pipeline
from scalecli.accounting.memory.layout import Layout, check_layout, check_recipe
from scalecli.accounting.memory.offload import Moved, host_terms, moved_parts
from scalecli.accounting.memory.rank import rank_of
from scalecli.accounting.memory.recipe import MOMENTS, Moment, Recipe
from scalecli.accounting.memory.step import step_peaks
from scalecli.accounting.memory.terms import RULES, Term
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Allocated bytes of the worst rank, without context, workspaces and fragmentation."""

    terms: tuple[Term, ...]
    peak_bytes: int
    moment: Moment
    """When the peak is reached."""
    saved_for_backward_bytes: int
    """Activations and weight copies of one micro-batch that wait for the backward pass."""
    host_terms: dict[str, int]
    """Host memory for what is offloaded from one device, by name: staging buffers and what pinning wastes too."""
    moved: tuple[Moved, ...]
    """What is offloaded, and the traffic it makes."""
    stage: int
    """The pipeline stage whose rank is the worst."""

    @property
    def host_bytes(self) -> int:
        """Host memory for one device."""
        return sum(self.host_terms.values())

    @property
    def moments(self) -> dict[Moment, int]:
        """The highest number of bytes alive in each moment."""
        return {moment: sum(term.moments.get(moment, 0) for term in self.terms) for moment in MOMENTS}


def estimate_memory(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout | None = None,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
) -> MemoryEstimate:
    """The closed forms summed for every pipeline stage; the worst stage is returned.

    Raises PlanError if the model cannot be cut as `layout` says.
    """
    layout = layout or Layout()
    if micro_batch_sequences < 1 or sequence_length < 1:
        raise PlanError(f"a micro-batch of {micro_batch_sequences} × {sequence_length} tokens holds nothing")
    check_layout(shape, layout, sequence_length)
    check_recipe(recipe, layout)
    # The first stage holds the embedding, the most layers and the most micro-batches; the last one the loss.
    stages = sorted({0, layout.pp - 1})
    estimates = [
        _estimate_stage(shape, recipe, layout, stage, micro_batch_sequences, sequence_length)
        for stage in stages
    ]
    return max(estimates, key=lambda estimate: estimate.peak_bytes)


def _estimate_stage(
    shape: ModelShape, recipe: Recipe, layout: Layout, stage: int, sequences: int, sequence_length: int
) -> MemoryEstimate:
    rank = rank_of(
        shape, recipe, layout, micro_batch_sequences=sequences, sequence_length=sequence_length, stage=stage
    )
    in_flight = pipeline.in_flight(layout, recipe.accumulation, stage)
    by_moment, saved = step_peaks(rank, recipe, layout, in_flight)
    moved = moved_parts(rank, recipe, layout, in_flight)
    totals = {moment: sum(by_moment.get(moment, {}).values()) for moment in MOMENTS}
    moment = max(MOMENTS, key=totals.__getitem__)
    terms = []
    for name, rule in RULES.items():
        at = {m: by_moment.get(m, {}).get(name, 0) for m in MOMENTS}
        if any(at.values()):
            terms.append(Term(name, at[moment], at, rule))
    return MemoryEstimate(
        terms=tuple(terms),
        peak_bytes=totals[moment],
        moment=moment,
        saved_for_backward_bytes=saved,
        host_terms=host_terms(rank, recipe, layout, moved),
        moved=moved,
        stage=stage,
    )
