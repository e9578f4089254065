"""What makes two fits answers to the same question."""

from __future__ import annotations

from scalecli.errors import DataError
from scalecli.fitters.fit import Fit

SAME_MEASURE = ("loss_kind", "tokenizer")
"""Losses are in nats per token of one tokenizer, on one kind of data: else they cannot be subtracted."""


def require_comparable(first: Fit, second: Fit) -> None:
    """Raise `DataError` for fits of different quantities, kinds of loss or tokenizers."""
    if first.law.output != second.law.output:
        raise DataError(
            f"one fit predicts {first.law.output}, the other {second.law.output}: nothing to compare",
            hint="compare two fits of the same quantity",
        )
    for name in SAME_MEASURE:
        kinds = [fit.provenance.get("setup", {}).get(name) for fit in (first, second)]
        if None not in kinds and kinds[0] != kinds[1]:
            raise DataError(
                f"the {name} of one fit is {kinds[0]}, of the other {kinds[1]}: their losses are not the same "
                "quantity",
                hint="fit both to losses of one kind (bits per byte compare across tokenizers)",
            )
