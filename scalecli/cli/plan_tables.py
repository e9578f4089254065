"""The tables of a plan: first what to run, then what it costs otherwise, then what every value rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from scalecli.cli.layout_tables import draw_alternatives
from scalecli.cli.memory import draw_memory
from scalecli.cli.render import filled_table, span
from scalecli.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

# The line that decides each row of the summary, the last one to have a say first.
DECIDING = {
    "batch": ("batch ceiling", "batch for the objective", "batch"),
    "critical batch": ("critical batch",),
    "peak learning rate": ("learning rate ceiling", "learning rate"),
    "schedule": ("schedule",),
    "warm-up": ("warmup_fraction",),
    "optimizer": ("beta1", "weight_decay"),
    "loss": ("loss",),
    "days": ("days",),
}
ORIGINS = {
    "presets": "published rules: folklore",
    "fit": "fit",
    "runs": "the runs of the fit",
    "none": "needs a fit",
}
COUNTED = ("tokens", "parameters")
"""Units whose values are written as people write them: 1.2M."""


def draw_plan(document: Any) -> Iterator[RenderableType]:
    """The tables of a plan document."""
    target, batch = document["target"], document["batch"]
    title = f"{format_count(target['params'])} parameters on {format_count(target['tokens'])} tokens"
    heads = ["", "recommended", "within 0.1 % of the loss", "from"]
    yield filled_table(title, heads, _summary(document))
    if document["allocation"]:
        heads = [
            "experts", "parameters", "active", "tokens", "loss", "training FLOPs", "inference FLOPs", "days", "cost",
            "to serve", "",
        ]  # fmt: skip
        yield filled_table(
            "Other ways to spend it",
            heads,
            (_allocation(row, document["cost"]) for row in document["allocation"]),
        )
    if batch["tradeoff"]:
        heads = [
            "batch [tokens]",
            "steps",
            "extra tokens",
            "excess loss",
            "as compute",
            "learning rate",
            "days",
        ]
        yield filled_table("What another batch size would cost", heads, map(_choice, batch["tradeoff"]))
    if len(batch["schedule"]) > 1:
        heads = ["from token", "batch [tokens]", "× learning rate"]
        yield filled_table("Batch over training", heads, map(_stage, batch["schedule"]))
    if document["memory"]:
        yield from draw_memory(document["memory"])
        yield from draw_alternatives(document["alternatives"])
    if document["moved"]:
        heads = ["value", "moved to", "rule", "source", "mind"]
        yield filled_table("Your setting, moved", heads, map(_moved, document["moved"]))
    if document["presets"]:
        heads = [
            "published rule",
            "kind",
            "batch [tokens]",
            "learning rate",
            "in range",
            "measured at",
            "doubt",
        ]
        yield filled_table("What published rules say here", heads, map(_preset, document["presets"]))
    heads = ["line", "value", "rule", "source", "mind"]
    lines = (line for line in document["lines"] if not line["name"].startswith("memory: "))
    yield filled_table("Every value, its rule and its source", heads, _lines(lines))


def _summary(document: Any) -> Iterator[tuple[object, ...]]:
    batch, rate, optimizer = document["batch"], document["learning_rate"], document["optimizer"]
    origins = {line["name"]: line["source"] for line in document["lines"] if _decides(line)}

    def row(name: str, value: object, flat: str | None = None, unit: str = "") -> tuple[object, ...]:
        deciding = next((origins[line] for line in DECIDING[name] if line in origins), None)
        origin = None if deciding is None else ORIGINS.get(deciding, deciding)
        return f"{name}{unit}", value, flat, origin

    flat_batch = _range(batch["flat_range_tokens"], format_count)
    run = f"run as {batch['sequences']} sequences of {batch['sequence_length']}"
    yield row("batch", span(batch["tokens"], format_count), flat_batch, " [tokens]")
    yield "", f"{run}, {batch['steps']} steps", None, None
    yield row("critical batch", span(batch["critical_tokens"], format_count), unit=" [tokens]")
    yield row("peak learning rate", span(rate["peak"]), _range(rate["flat_range"], "{:.3g}".format))
    falls = rate["peak"] is not None and rate["final"] != rate["peak"]["value"]
    yield row("schedule", f"{rate['schedule']}, to {rate['final']:.3g}" if falls else rate["schedule"])
    yield row("warm-up", rate["warmup_tokens"] and format_count(rate["warmup_tokens"]), unit=" [tokens]")
    yield row("optimizer", _optimizer(optimizer))
    yield row("loss", span(document["loss"]), unit=" [nats/token]")
    if document["cost"]:
        yield row("days", _days(document["cost"]))
        yield "", _price(document["cost"]), None, None


def _days(cost: Any) -> str:
    lost = "" if cost["goodput"] == 1 else f", goodput {cost['goodput']:.3g}"
    return f"{span(cost['days'])} at MFU {span(cost['mfu'])}{lost}"


def _price(cost: Any) -> str:
    """Device-hours, and what they cost in money and energy as far as that is known."""
    parts = [f"{span(cost['device_hours'], format_count)} device-hours"]
    if cost["amount"]:
        parts.append(f"{span(cost['amount'], format_count)} {cost['currency']}")
    if cost["energy_kwh"]:
        parts.append(f"{span(cost['energy_kwh'], format_count)} kWh")
    return ", ".join(parts)


def _decides(line: Any) -> bool:
    """A ceiling decides where it binds, which its warning says."""
    return not line["name"].endswith("ceiling") or line["warning"] is not None


def _optimizer(optimizer: Any) -> str:
    names = {"beta1": "beta1", "beta2": "beta2", "weight_decay": "weight decay"}
    known = [f"{said} {optimizer[key]:.4g}" for key, said in names.items() if optimizer[key] is not None]
    return ", ".join([optimizer["name"], *known])


def _range(ends: Any, read: Any) -> str | None:
    return None if ends is None else f"{read(ends[0])} … {read(ends[1])}"


def _allocation(row: Any, cost: Any) -> tuple[object, ...]:
    amount = None if row["amount"] is None else f"{row['amount']:,.0f} {cost['currency']}"
    return (
        row["num_experts"], format_count(row["params"]), format_count(row["params_active"]),
        format_count(row["tokens"]), f"{row['loss']:.4f}", format_count(row["training_flops"]),
        format_count(row["inference_flops"]) if row["inference_flops"] else None, row["days"], amount,
        format_bytes(row["serve_bytes"]), row["reason"],
    )  # fmt: skip


def _choice(choice: Any) -> tuple[object, ...]:
    extra, compute = choice["extra_tokens_fraction"], choice["excess_compute_fraction"]
    shares = [None if share is None else f"{share:.1%}" for share in (extra, compute)]
    loss = choice["excess_loss"]
    cost = (shares[0], None if loss is None else f"{loss:.4f}", shares[1])
    return (
        format_count(choice["batch_tokens"]),
        choice["steps"],
        *cost,
        choice["learning_rate"],
        choice["days"],
    )


def _stage(stage: Any) -> tuple[object, ...]:
    factor = f"{stage['learning_rate_factor']:.3g}"
    return format_count(stage["from_token"]), format_count(stage["batch_tokens"]), factor


def _lines(lines: Iterable[Any]) -> Iterator[tuple[object, ...]]:
    """One row a line; neighbours that rest on the same rule share one."""

    def ground(line: Any) -> tuple[object, ...]:
        return line["rule"], line["source"], line["warning"]

    for (rule, source, warning), same in groupby(lines, key=ground):
        group = list(same)
        yield "\n".join(line["name"] for line in group), "\n".join(map(_value, group)), rule, source, warning


def _value(line: Any) -> str:
    if isinstance(line["value"], str):
        return line["value"]
    return span(line, format_count) if line["unit"].startswith(COUNTED) else span(line)


def _preset(preset: Any) -> tuple[object, ...]:
    batch = preset["batch_tokens"]
    said = None if batch is None else format_count(batch)
    kind = " ".join(filter(None, [preset["quantity"], preset["definition"] and f"({preset['definition']})"]))
    valid = "yes" if preset["valid"] else "no"
    outside = "\n".join(preset["outside"]) or None
    return preset["source"], kind, said, preset["learning_rate"], valid, outside, preset["doubt"]


def _moved(entry: Any) -> tuple[object, ...]:
    read = format_count if entry["quantity"].endswith("tokens") else "{:.4g}".format
    return entry["quantity"], span(entry, read), entry["rule"], entry["source"], entry["warning"]
