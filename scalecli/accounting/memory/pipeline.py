"""How many micro-batches a pipeline stage holds at once."""

from __future__ import annotations

from fractions import Fraction

from scalecli.accounting.memory.layout import Layout


def in_flight(layout: Layout, micro_batches: int, stage: int) -> Fraction:
    """Micro-batches whose activations are alive at once on a stage, in whole stages of activations.

    1F1B: as many as stages from here to the end (Narayanan et al., 2104.04473, section 2.2). Interleaved: the same
    and the warm-up of the other model chunks. Breadth-first: all of them (Lamy-Poirier, 2211.05953, section 4.2).
    Zero-bubble with equal memory: as many as there are stages on every stage (Qi et al., 2401.10241, table 2).
    """
    if layout.pp == 1:
        return Fraction(1)
    if layout.schedule == "breadth-first":
        return Fraction(micro_batches)
    if layout.schedule == "zero-bubble":
        return Fraction(min(micro_batches, layout.pp))
    if layout.schedule == "interleaved":
        chunks = 2 * (layout.pp - stage - 1) + (layout.virtual_stages - 1) * layout.pp + 1
        return min(Fraction(micro_batches), max(Fraction(1), Fraction(chunks, layout.virtual_stages)))
    return Fraction(min(micro_batches, layout.pp - stage))


def bubble(layout: Layout, micro_batches: int) -> float:
    """Idle time of a pipeline relative to its working time.

    (p - 1)/m for 1F1B, 1/v of it with v model chunks a rank (Narayanan et al., 2104.04473, section 2.2; breadth-first
    alike), a third of it where weight gradients fill the gap (Qi et al., 2401.10241, table 1).
    """
    if layout.schedule == "zero-bubble":
        return (layout.pp - 1) / (3 * micro_batches)
    return (layout.pp - 1) / (layout.virtual_stages * micro_batches)
