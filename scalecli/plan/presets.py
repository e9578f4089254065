"""What published rules say for a target: shown beside a fitted answer, and all there is without one.

Optima (least loss at fixed data) and critical sizes (a limit on parallelism) are different quantities, so that a
paper with both has an entry for each. Batches are in tokens: a rule in sequences is multiplied by the length of its
own sequences, not of the target's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

from scalecli.data.catalogue import PublishedLaw, presets, published_law
from scalecli.plan.critical import OVERHEAD
from scalecli.plan.document import Preset
from scalecli.plan.published import published_inputs, published_value
from scalecli.plan.target import Target

# Critical sizes are stated over the loss, and without a fit some published law has to say it: the refit of the
# Chinchilla runs, whose own errors are known (Besiroglu et al. 2024, 2404.10102).
STAND_IN_LOSS = "chinchilla-refit"
Quantity = Literal["optimum", "critical"]


def presets_for(target: Target, loss: float | None) -> list[Preset]:
    """Every verified batch and learning-rate rule of the catalogue for the target's workload, optima first.

    `loss` [nats/token] is the predicted one; without it the catalogue's stands in, and the notes say so. `valid` is
    false where the target lies outside a range in which the rule was measured.
    """
    columns = columns_at(target)
    stand_in = loss is None
    columns["loss"] = loss if loss is not None else _published_loss(columns)
    found = [
        preset_of(
            name, quantity, [record for record in records if record.quantity == quantity], columns, stand_in
        )
        for name, records in presets(target.workload).items()
        for quantity in _quantities(records)
    ]
    return sorted(found, key=lambda preset: preset.quantity == "critical")


def columns_at(target: Target) -> dict[str, float]:
    """The target as inputs of published rules."""
    return {
        **target.columns(),
        "tokens_per_param": target.tokens / target.params,
        "sequence_length": float(target.sequence_length),
    }


def _quantities(records: Sequence[PublishedLaw]) -> list[Quantity]:
    return list(dict.fromkeys(cast(Quantity, record.quantity) for record in records))


def _published_loss(columns: Mapping[str, float]) -> float:
    value = published_value(published_law(STAND_IN_LOSS), columns)
    assert value is not None, "a target has params and tokens"
    return value


def preset_of(
    name: str,
    quantity: Quantity,
    records: Sequence[PublishedLaw],
    columns: Mapping[str, float],
    stand_in: bool = False,
) -> Preset:
    """What these records of one paper say at `columns`; `stand_in` when the loss among them is no prediction."""
    said = {record.output: published_value(record, columns) for record in records}
    outside = [part for record in records for part in record.outside(columns)]
    return Preset(
        source=name,
        quantity=quantity,
        definition=records[0].definition or None,
        hyperbola_tokens=_as_hyperbola(records[0], said.get("batch_tokens")),
        budget="data" if any("tokens" in published_inputs(record) for record in records) else "compute",
        batch_tokens=said.get("batch_tokens"),
        learning_rate=said.get("learning_rate"),
        valid=not outside,
        outside=list(dict.fromkeys(outside)),
        doubt="; ".join(dict.fromkeys(record.doubt for record in records if record.doubt)) or None,
        note="; ".join(
            dict.fromkeys(part for record in records for part in _notes(record, columns, stand_in))
        ),
    )


def _as_hyperbola(record: PublishedLaw, batch_tokens: float | None) -> float | None:
    """The critical size in McCandlish's definition; None for an optimum, and where the conversion has no answer.

    The overhead batch counted from B0 is 0.2 B_crit + 1.2 B0.
    """
    if batch_tokens is None or not record.definition:
        return None
    if record.definition == "hyperbola":
        return batch_tokens
    found = (batch_tokens - (1 + OVERHEAD) * record.values["base_batch"]) / OVERHEAD
    return found if found > 0 else None


def _notes(record: PublishedLaw, columns: Mapping[str, float], stand_in: bool) -> list[str]:
    """Source, which N, ranges that the target leaves, set-up and doubts."""
    parts = [record.source]
    if record.params:
        parts.append(f"N {record.params}")
    parts += [f"measured at {span}" for span in record.outside(columns)]
    if stand_in and "loss" in published_inputs(record):
        parts.append(f"at the loss {columns['loss']:.3g} of {STAND_IN_LOSS}")
    return [*parts, record.setup, *filter(None, [record.doubt])]
