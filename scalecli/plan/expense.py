"""What a plan says of interruptions, checkpoints and energy beside its days."""

from __future__ import annotations

from scalecli.plan.cost import Economy
from scalecli.plan.goodput import PUBLISHED_DEVICE_SECONDS, Checkpoints
from scalecli.plan.notes import Notes
from scalecli.plan.steptime import StepTime
from scalecli.units import format_bytes, format_seconds

# Best training jobs on TPU pods: 97 % (Gemini Team, 2312.11805, section 4); one controller keeps 2,048 TPUs busy for
# about all of the time that nothing fails (Barham et al., Pathways, 2203.12533, abstract).
LARGEST_GOODPUT = 0.97
CONTROLLER = "barham2022"


def note_checkpoints(checkpoints: Checkpoints, economy: Economy, notes: Notes) -> None:
    """Size, interval and host memory of checkpoints, and the goodput that follows."""
    said = economy.device_seconds is not None
    rate = "as said" if said else "419 interruptions of 16,384 devices in 54 days"
    notes.line(
        "checkpoint", float(checkpoints.total_bytes), unit="bytes", source="closed form",
        rule=f"one copy of weights and optimizer states, {format_bytes(checkpoints.device_bytes)} a device",
    )  # fmt: skip
    notes.line(
        "time between interruptions", checkpoints.between_interruptions, unit="s",
        rule=f"of one device {format_seconds(economy.device_seconds or PUBLISHED_DEVICE_SECONDS)} ({rate}), over all",
        source="you" if said else "grattafiori2024",
    )  # fmt: skip
    notes.line(
        "checkpoint interval", checkpoints.interval_seconds, unit="s", source="daly2006",
        rule=f"wastes least: a copy to host memory takes {checkpoints.write_seconds:.2g} s; storage has to take in "
        f"{format_bytes(checkpoints.storage_bandwidth)}/s to keep up",
    )  # fmt: skip
    notes.line(
        "host memory of snapshots", checkpoints.host_bytes, unit="bytes",
        rule="of one device: the last whole one and the one being written", source="wang2023",
    )  # fmt: skip
    if economy.goodput is not None:
        notes.line("goodput", economy.goodput, unit="1", rule="as said", source="you")
    else:
        notes.line(
            "goodput", checkpoints.goodput, unit="1", source="daly2006",
            rule="work over time with that interval and ten minutes to restart",
            warning=None if said else "days count no interruptions; --goodput or --mtbf does",
        )  # fmt: skip
    notes.line(
        "goodput, best published", LARGEST_GOODPUT, unit="1", source="geminiteam2023", no_interval="as printed",
        rule=f"of training on TPU pods; devices under one controller are busy but for failures ({CONTROLLER})",
    )  # fmt: skip
    if economy.goodput is not None and economy.goodput > LARGEST_GOODPUT:
        notes.warn(
            "W-GOODPUT",
            f"a goodput of {economy.goodput:.0%} is more than the best published, {LARGEST_GOODPUT:.0%}",
        )


def note_energy(step: StepTime, count: int, power_watts: float | None, notes: Notes) -> None:
    """Of one step, at the design power of the devices."""
    if power_watts is None:
        return
    notes.line(
        "energy of a step", step.seconds * count * power_watts / 3.6e6, unit="kWh",
        rule="seconds of a step × devices × design power, without cooling", source="closed form",
    )  # fmt: skip
