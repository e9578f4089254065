"""The tables of a layout: where a step's time goes, what else could be run, and what is run on fewer devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from scalecli.cli.render import filled_table, table
from scalecli.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

DEGREES = {
    "data_parallel": "data", "tensor_parallel": "tensor", "pipeline_parallel": "pipeline",
    "context_parallel": "context", "expert_parallel": "expert",
}  # fmt: skip


def draw_layout(memory: Any) -> Iterator[RenderableType]:
    """The tables of the memory part of a plan that its layout has."""
    if memory["devices"]:
        heads = [
            "device",
            "count",
            "sequences",
            "micro-batch",
            "share of the states",
            "bytes",
            "headroom",
            "a step",
        ]
        yield table("What each device does and holds", heads, map(_device, memory["devices"]))
    if memory["step"]:
        yield from _draw_step(memory["step"])
    if memory["elastic"]:
        heads = [
            "devices",
            "idle",
            "data",
            "sequences a rank",
            "micro-batch × accumulation",
            "bytes",
            "a step",
        ]
        title = "On fewer devices: batch, learning rate and the weight of every sequence stay"
        yield table(title, heads, map(_elastic, memory["elastic"]))


def draw_alternatives(choices: Any) -> Iterator[RenderableType]:
    """Other layouts that fit, the fastest first."""
    if choices:
        heads = [
            "layout",
            "micro-batch × accumulation",
            "recompute; offload",
            "bytes",
            "a step",
            "MFU",
            "why not",
        ]
        yield filled_table("Other layouts that fit", heads, map(_choice, choices))


def layout_text(layout: Any) -> str:
    """Sharding, degrees and schedule, without those that are one."""
    parts = [layout["sharding"] if layout["shard_group"] is None else _grouped(layout)]
    parts += [f"{said} {layout[name]}" for name, said in DEGREES.items() if layout[name] > 1]
    if layout["pipeline_parallel"] > 1:
        chunks = f" × {layout['virtual_stages']} chunks" if layout["virtual_stages"] > 1 else ""
        parts.append(f"{layout['schedule']}{chunks}")
    return ", ".join(parts)


def saving_text(layout: Any) -> str:
    """What is recomputed and offloaded, and in how many layers where not in all."""
    recomputed = f"{layout['recompute']}{_in_layers(layout['recompute_layers'])}"
    if layout["offload"] == "none":
        return recomputed
    return f"{recomputed}; offload {layout['offload']}{_in_layers(layout['offload_layers'])}"


def _in_layers(layers: int | None) -> str:
    return "" if layers is None else f" (first {layers} layers)"


def _grouped(layout: Any) -> str:
    return f"{layout['sharding']} in groups of {layout['shard_group']}"


def _draw_step(step: Any) -> Iterator[RenderableType]:
    mfu = step["mfu"]
    yield (
        f"a step takes {_time(step['seconds'])}: {format_count(step['tokens_per_second'])} tokens/s, MFU "
        f"{mfu['value']:.1%} ({mfu['low']:.1%} … {mfu['high']:.1%}), or "
        f"{step['mfu_full_attention']:.1%} with attention counted fully"
    )
    rows = (
        (name, _time(seconds), f"{seconds / step['seconds']:.1%}")
        for name, seconds in step["parts"].items()
        if seconds
    )
    yield table("Where a step's time goes", ["part", "time", "share"], rows)
    if step["communication"]:
        heads = ["communication", "ranks", "links", "sent", "time", "beside computation", "exposed"]
        yield table("What ranks say to each other in a step", heads, map(_exchange, step["communication"]))


def _exchange(each: Any) -> tuple[object, ...]:
    times = [_time(each[name]) for name in ("seconds", "beside_seconds", "exposed_seconds")]
    return each["name"], each["ranks"], each["link"], format_bytes(each["bytes"]), *times


def _elastic(row: Any) -> tuple[object, ...]:
    fuller = f" ({row['fuller_ranks']} ranks one more)" if row["fuller_ranks"] else ""
    size = format_bytes(row["per_device_bytes"]) + ("" if row["fits"] else ", does NOT fit")
    return (
        row["devices"], row["idle_devices"], row["data_parallel"], f"{row['sequences_per_rank']}{fuller}",
        f"{row['micro_batch_sequences']} × {row['accumulation']}", size, f"{row['slowdown']:.2f}× as long",
    )  # fmt: skip


def _device(row: Any) -> tuple[object, ...]:
    fuller = f" ({row['fuller_devices']} one more)" if row["fuller_devices"] else ""
    return (
        row["accelerator"], row["count"], f"{row['sequences']}{fuller}", row["micro_batch_sequences"],
        f"{row['state_share']:.2%}", format_bytes(row["per_device_bytes"]), format_bytes(row["headroom_bytes"]),
        _time(row["seconds"]),
    )  # fmt: skip


def _choice(choice: Any) -> tuple[object, ...]:
    return (
        layout_text(choice), f"{choice['micro_batch_sequences']} × {choice['accumulation']}", saving_text(choice),
        format_bytes(choice["per_device_bytes"]), _time(choice["step_seconds"]), f"{choice['mfu']:.1%}",
        choice["reason"],
    )  # fmt: skip


def _time(seconds: float) -> str:
    return format_seconds(seconds) if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
