"""What replicas that train apart need of their link: mean and peak bandwidth, beside training that averages always."""

from __future__ import annotations

import math

from scalecli.plan.bandwidth import Averaging, every_so_often, every_step, streaming
from scalecli.plan.memory import MemoryPlan
from scalecli.plan.notes import Notes
from scalecli.plan.replicas import OUTER_BYTES
from scalecli.plan.speed import Speed
from scalecli.plan.target import Target

# The share of the time that devices compute, for the peak.
UTILISATION = 0.95
PATHS = "douillard2024dipaco"
COUNTED = "counted, not estimated"


def remark_on_replicas(target: Target, speed: Speed, layout: MemoryPlan, notes: Notes) -> None:
    """Nothing where all devices train one model together."""
    replicas = speed.replicas
    if replicas is None or replicas.count == 1:
        return
    step = layout.chosen.timed
    seconds = step.seconds - step.exposed("replicas")
    params = float(target.shape.params)
    every = every_so_often(target.sync_every)
    for averaging in (every_step(), every, streaming(target.sync_every, target.shape.layers)):
        _note_bandwidth(averaging, params, replicas.count, seconds, notes)
    notes.line(
        "bandwidth of no averaging at all", 0.0, unit="bits/s", source="mcallister2025", no_interval=COUNTED,
        rule="experts trained apart on clusters of the data and a router afterwards; paths that share some modules "
        f"average those alone ({PATHS})",
    )  # fmt: skip
    notes.line(
        "outer state", float(OUTER_BYTES * target.shape.params), unit="bytes", source="douillard2023",
        rule="of a replica, in host memory: the last average and the outer momentum in float32", no_interval=COUNTED,
    )  # fmt: skip
    notes.line(
        "utilisation, published", "83 % across continents, 96 % within one country; MFU 36.2 to 41.4 %", unit="",
        rule="10B parameters on up to 112 × h100-80g, int8 averages every 100 steps", source="jaghouar2024",
    )  # fmt: skip
    _note_delay(target, speed, every, seconds, notes)


def _note_bandwidth(averaging: Averaging, params: float, replicas: int, seconds: float, notes: Notes) -> None:
    """Of one replica's link, over all training and while it is used."""
    mean = averaging.mean_bandwidth(params, replicas, seconds)
    busy = averaging.bandwidth(params, replicas, seconds, UTILISATION)
    rule = f"{averaging.bits} bits a parameter every {averaging.steps} steps"
    if averaging.fragments > 1:
        rule += f" in {averaging.fragments} fragments, each behind the next step"
    source = "douillard2025" if averaging.fragments > 1 else "charles2025"
    notes.line(
        f"mean bandwidth, {averaging.name}",
        mean,
        unit="bits/s",
        rule=rule,
        source=source,
        no_interval=COUNTED,
    )
    notes.line(
        f"peak bandwidth, {averaging.name}", busy, unit="bits/s", source=source, no_interval=COUNTED,
        rule=f"at which devices compute for {UTILISATION:.0%} of the time",
    )  # fmt: skip


def _note_delay(target: Target, speed: Speed, averaging: Averaging, seconds: float, notes: Notes) -> None:
    """How many steps a synchronisation lasts, which is the delay that would hide it."""
    assert speed.replicas is not None, "asked for replicas only"
    part = speed.replicas.part(speed.fleet)
    link = speed.replicas.link(part.device, part.count)
    if link is None:
        notes.warn(
            "W-NO-LINK",
            f"how fast replicas of {part.device.name} reach each other is not known, and averaging takes no time here; "
            "--replica-bandwidth says it",
        )
        return
    steps = averaging.steps_to_hide(float(target.shape.params), speed.replicas.count, seconds, link)
    notes.line(
        "steps that a synchronisation lasts", steps, unit="steps", source="sun2024",
        no_interval="by the step-time model",
        rule=f"over {link:.3g} bits/s; outer updates that come {math.ceil(steps)} steps late hide it",
        warning="longer than the steps between two of them" if steps > averaging.steps else None,
    )  # fmt: skip
