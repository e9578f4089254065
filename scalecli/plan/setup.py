"""Whether the runs behind a fit were trained the way the target will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.plan.notes import Notes
from scalecli.plan.target import Target

# An optimum moves when one of these does; the optimum found for one is not a statement about another.
COMPARED = ("tokenizer", "optimizer", "schedule", "loss_kind", "parametrization")


def check_setup(
    setups: Mapping[str, Mapping[str, Any]], wished: Mapping[str, Any], target: Target, notes: Notes
) -> None:
    """Warn where fits disagree with one another, with the wish, or with the target's sequence length.

    `setups` is the recipe that each fit's runs held fixed, by the fit's law. Raises `PlanError` for a wish about what
    is not compared.
    """
    if unknown := sorted(set(wished) - set(COMPARED)):
        raise PlanError(
            f"{', '.join(unknown)} of the target is not compared with the runs",
            hint=f"--recipe takes {', '.join(COMPARED)}",
        )
    for name in COMPARED:
        said = {law: setup[name] for law, setup in setups.items() if setup.get(name) is not None}
        if wished.get(name) is not None:
            said["the target"] = wished[name]
        if len(set(said.values())) > 1:
            listed = ", ".join(f"{law}: {value}" for law, value in said.items())
            notes.warn("W-SETUP-MISMATCH", f"{name} differs ({listed}): optima and losses do not carry over")
    for law, setup in setups.items():
        length = setup.get("sequence_length")
        if length is not None and length != target.sequence_length:
            notes.warn(
                "W-SEQUENCE-LENGTH",
                f"the runs of {law} had sequences of {length:g} tokens, the target has {target.sequence_length}",
            )


def check_batch_unit(fits: Sequence[Fit], notes: Notes) -> None:
    """Warn of fits whose batches are smaller than one of their sequences: they were given in sequences."""
    for fit in fits:
        length = (fit.provenance.get("setup") or {}).get("sequence_length")
        _, largest = fit.domain.get("batch_tokens", (0.0, float("inf")))
        if length is not None and largest < length:
            notes.warn(
                "W-BATCH-UNIT",
                f"the largest batch of the {fit.law.name} runs is {largest:g} tokens, less than one of their sequences "
                f"of {length:g}: batches in sequences are --map batch_sequences=...",
            )
