"""DiLoCo: replicas that train apart and average now and then, by the published laws of its batch and rates.

Each replica takes its share of the batch; after `SYNC_STEPS` inner steps the replicas' movements are averaged by an
outer optimizer (SGD with Nesterov momentum). Charles et al. 2025.
"""

from __future__ import annotations

import math

from scalecli.data.catalogue import published_law, published_laws
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.document import Preset
from scalecli.plan.notes import Notes
from scalecli.plan.presets import columns_at, preset_of
from scalecli.plan.published import published_value
from scalecli.plan.target import SYNC_STEPS, Target


def diloco_presets(target: Target) -> list[Preset]:
    """What the paper's laws say for this many replicas: its own fit where there is one, and the joint one."""
    assert target.replicas is not None, "asked for DiLoCo only"
    known = {law.name for law in published_laws()}
    columns = columns_at(target) | {"replicas": float(target.replicas)}
    families = [f"diloco-{target.replicas}", "diloco-joint"]
    return [
        preset_of(
            f"DiLoCo {'joint' if family.endswith('joint') else f'M={target.replicas}'}", "optimum",
            [published_law(f"{family}-batch"), published_law(f"{family}-learning-rate")], columns,
        )
        for family in families
        if f"{family}-batch" in known
    ]  # fmt: skip


def note_diloco(target: Target, has_landscape: bool, notes: Notes) -> None:
    """The outer rate and the published loss; nothing for other algorithms."""
    if target.replicas is None:
        return
    notes.line(
        "outer learning rate", outer_learning_rate(target.replicas), unit="1",
        rule="by replicas; independent of size, rises with the steps between synchronisations", source="charles2025",
        no_interval="published for this number of replicas",
    )  # fmt: skip
    loss = published_value(
        published_law("diloco-joint-loss"), columns_at(target) | {"replicas": float(target.replicas)}
    )
    notes.line(
        "published loss", loss, unit="nats/token", rule="DiLoCo joint law at 20 tokens a parameter, C4",
        source="charles2025", warning="of its own data and tokenizer", no_interval="the paper states none",
    )  # fmt: skip
    if target.sync_every != SYNC_STEPS:
        notes.warn(
            "W-DILOCO-INTERVAL",
            f"the laws of batch and rates were measured at {SYNC_STEPS} steps between synchronisations, not at "
            f"{target.sync_every}: the outer rate rises with them, and so does the loss",
        )
    if has_landscape:
        notes.warn(
            "W-ALGORITHM-MISMATCH",
            "the landscape's runs averaged at every step: with replicas that train apart batch and rate move",
        )


def outer_learning_rate(replicas: int) -> FitInterval:
    """The published rate, or that between the nearest numbers of replicas with theirs as its ends."""
    values = published_law("diloco-outer-learning-rate").values
    known = sorted((int(name.removeprefix("replicas_")), rate) for name, rate in values.items())
    below = max((entry for entry in known if entry[0] <= replicas), default=known[0])
    above = min((entry for entry in known if entry[0] >= replicas), default=known[-1])
    if below[0] == above[0]:
        return FitInterval(below[1], None, None)
    share = math.log(replicas / below[0]) / math.log(above[0] / below[0])
    return FitInterval(
        below[1] + share * (above[1] - below[1]), min(below[1], above[1]), max(below[1], above[1])
    )
