"""A learning rate carried from one optimizer to another, where a published ratio exists."""

from __future__ import annotations

import math

from scalecli.data.catalogue import optimizer as known_optimizer
from scalecli.data.catalogue import published_law
from scalecli.plan.rules.moved import Moved

SGD_LIKE = ("sgd", "sgd-momentum", "lars")
SAME_UPDATE = {"adamw", "adamw-8bit"}
"""Optimizers that differ in how they store their states only."""


def change_optimizer(learning_rate: float, before: str, after: str) -> Moved:
    """The learning rate for `after`; no value where no ratio is published. `DataError` for unknown names."""
    known_optimizer(before), known_optimizer(after)
    if (before, after) in {("adamw", "muon"), ("muon", "adamw")}:
        return _moved(
            learning_rate,
            "muon with updates scaled by 0.2 √max(m, n) keeps AdamW's rate and weight decay",
            "liu2025",
        )
    if (before, after) == ("adamw", "adamw-8bit"):
        return _moved(learning_rate, "the same update from quantized states", "dettmers2021")
    if (before, after) == ("adamw", "lion"):
        record = published_law("lion-learning-rate")
        least, most = record.values["least"], record.values["most"]
        return Moved(
            quantity="learning_rate", value=learning_rate / math.sqrt(least * most),
            low=learning_rate / most, high=learning_rate / least,
            rule=f"Lion: AdamW's rate over {least:g} to {most:g}, weight decay as much larger",
            source=record.source, range=record.setup, warning=record.doubt or None,
        )  # fmt: skip
    return Moved(
        quantity="learning_rate",
        value=None,
        rule=f"no published ratio carries a rate from {before} to {after}",
        source="none",
        range="",
        warning="run `scalecli probe lr` with the new optimizer",
    )


def shares_decays(before: str, after: str) -> bool:
    """Whether betas and epsilon of one are those of the other."""
    return before == after or {before, after} == SAME_UPDATE


def _moved(value: float, rule: str, source: str) -> Moved:
    return Moved(
        quantity="learning_rate",
        value=value,
        rule=rule,
        source=source,
        range="pre-training of language models",
    )
