"""The value of a published record at a target, whether its form is a closed rule or a law of the fitters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scalecli.data.catalogue import FORMS, PublishedLaw
from scalecli.fitters.laws import law_named


def published_inputs(record: PublishedLaw) -> tuple[str, ...]:
    """The columns that the record asks for."""
    if record.law in FORMS:
        return record.inputs
    return tuple(law_named(record.law).inputs)


def published_value(record: PublishedLaw, columns: Mapping[str, float]) -> float | None:
    """The record's output in its unit; None where the target lacks one of its inputs (a predicted loss, say).

    None as well where the rule is no longer positive: Kaplan's learning rate ends at 12B parameters.
    """
    if any(name not in columns for name in published_inputs(record)):
        return None
    if record.law in FORMS:
        value = record.predict(columns)
    else:
        law = law_named(record.law)(**record.values)
        value = float(law.predict({name: np.array([columns[name]]) for name in law.inputs})[0])
    return value if value > 0 else None
