"""`scalecli memory`: bytes, moment of the peak and layout, for a model and hardware."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options, step
from scalecli.cli.layout_tables import draw_alternatives, draw_layout, layout_text, saving_text
from scalecli.cli.model import wished_shape
from scalecli.cli.render import show, table
from scalecli.units import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.accounting.memory import Layout


@step.takes(step.BLOCKS, step.RECIPE, step.LAYOUT)
def memory(
    params: options.Params = None,
    params_kind: options.ParamsKind = "total",
    layers: options.Layers = None,
    width: options.Width = None,
    ffn: options.Ffn = None,
    heads: options.Heads = None,
    kv_heads: options.KvHeads = None,
    vocab: options.Vocab = 32000,
    sequence_length: options.SequenceLength = 2048,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            "--micro-batch",
            help="Sequences a device holds at once.",
            show_default="1, or what --search finds",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Sequences in a step, over all devices.")
    ] = None,
    sharding: Annotated[
        str | None,
        typer.Option(
            "--sharding", metavar="none|ddp|zero1|zero2|zero3", show_default="ddp with --dp, else none"
        ),
    ] = None,
    dp: Annotated[
        int | None,
        typer.Option("--dp", min=1, help="Data-parallel ranks.", show_default="what --count leaves"),
    ] = None,
    accelerator: options.Accelerator = None,
    count: options.DeviceCount = 1,
    accelerators: options.AcceleratorFile = None,
    assume: options.Assume = None,
    search: Annotated[
        bool,
        typer.Option("--search", help="Find the fastest layout that fits; what else is said of it holds."),
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Train three sizes here, and keep what the --accelerator needs beyond tensors.",
        ),
    ] = False,
    device: options.Device = "auto",
    out: options.Out = None,
    as_json: options.Json = False,
    **wishes: Any,
) -> None:
    """Say how many bytes each thing takes on one device, when the peak is, and whether it fits.

    Examples:

      scalecli memory --layers 32 --width 4096 --ffn 11008 --heads 32 --vocab 32000 --sequence-length 2048

      scalecli memory --params 70B --accelerator h100-80g --count 512 --batch 1024 --search

      scalecli memory --params 7B --accelerator a100-80g:8,v100-32g:8 --batch 256

      scalecli memory --calibrate --accelerator h100-80g --device cuda
    """
    from dataclasses import replace

    from scalecli.accounting.memory import Recipe
    from scalecli.cli.calibrate import calibrate_overhead, draw_calibration
    from scalecli.errors import PlanError
    from scalecli.plan.devices import plan_on
    from scalecli.plan.fleet import fleet_of
    from scalecli.plan.memory import plan_memory
    from scalecli.plan.step.conditions import assumed

    recipe = Recipe(**step.values(step.RECIPE, wishes))
    if calibrate:
        overhead = calibrate_overhead(accelerator, accelerators, device, recipe)
        show(overhead, draw_calibration, as_json=as_json, out=out)
        return
    sizes = wished_shape(params, params_kind, layers, width, ffn, heads, kv_heads, vocab)
    shape = replace(sizes, **step.values(step.BLOCKS, wishes))
    placement = step.values(step.LAYOUT, wishes)
    held = _held(placement, dp, sharding)
    fleet = None if accelerator is None else fleet_of(accelerator, count, accelerators)
    devices = count if fleet is None else fleet.count
    conditions = assumed(options.pairs(assume, "--assume"))
    if fleet is not None and fleet.is_mixed:
        if held:
            raise PlanError(
                f"devices of several kinds train fully sharded, with nothing to choose: not with {', '.join(held)}",
                hint="name one kind, or leave these options out",
            )
        found = plan_on(
            fleet, shape, sequence_length=sequence_length, batch_sequences=batch or devices * (micro_batch or 1),
            recipe=recipe, conditions=conditions,
        )  # fmt: skip
    else:
        found = plan_memory(
            shape, sequence_length=sequence_length, batch_sequences=batch, micro_batch_sequences=micro_batch,
            accelerator=None if fleet is None else fleet.device, count=devices, recipe=recipe,
            layout=None if search else _layout(placement, dp, sharding, count), search=search, held=held,
            conditions=conditions,
        )  # fmt: skip
    document = {
        "schema": "scalecli/memory/1",
        "target": {
            "params": shape.params, "shape": options.plain(shape), "sequence_length": sequence_length,
            "accelerator": accelerator, "count": devices, "recipe": options.plain(recipe),
        },
        **found.part,
        "alternatives": [choice.summary() for choice in found.alternatives],
        "warnings": [{"code": code, "message": message} for code, message in found.warnings],
    }  # fmt: skip
    show(document, _draw, as_json=as_json, out=out)


def _layout(placement: dict[str, Any], dp: int | None, sharding: str | None, count: int) -> Layout:
    """The layout that the options say; data-parallel ranks fill the devices, and hold whole replicas."""
    from scalecli.accounting.memory import Layout

    cut = placement["tp"] * placement["pp"] * placement["cp"]
    ranks = dp if dp is not None else max(1, count // cut)
    kind: Any = sharding or ("ddp" if ranks > 1 else "none")
    return Layout(**placement, dp=ranks, sharding=kind)


def _held(placement: dict[str, Any], dp: int | None, sharding: str | None) -> dict[str, Any]:
    """What the options say about a layout, for a search to hold to."""
    from scalecli.accounting.memory import Layout

    usual = Layout()
    said = {name: value for name, value in placement.items() if value != getattr(usual, name)}
    return said | {name: value for name, value in (("dp", dp), ("sharding", sharding)) if value is not None}


def _draw(document: Any) -> Iterator[RenderableType]:
    yield from draw_memory(document)
    yield from draw_alternatives(document["alternatives"])


def draw_memory(document: Any) -> Iterator[RenderableType]:
    """The tables of a memory plan."""
    peak = document["peak"]
    title = f"Memory of one device: {format_bytes(document['per_device_bytes'])}, highest at {peak['moment']}"
    rows = ((term["name"], format_bytes(term["bytes"]), term["rule"]) for term in document["terms"])
    yield table(title, ["term", "bytes", "rule"], rows)
    yield (
        f"micro-batch {document['micro_batch_sequences']} × accumulation {document['accumulation']}; "
        f"{layout_text(document)}; recompute {saving_text(document)}; {document['precision']}"
    )
    if document["host_bytes"]:
        yield from _draw_host(document)
    if document["fits"] is not None:
        verdict = "fits" if document["fits"] else "does NOT fit"
        yield f"{verdict}; headroom {format_bytes(document['headroom_bytes'])}"
    yield from draw_layout(document)


def _draw_host(document: Any) -> Iterator[RenderableType]:
    """What is offloaded from one device."""
    rows = ((name, format_bytes(size)) for name, size in document["host_terms"].items())
    title = f"In the host's memory for one device: {format_bytes(document['host_bytes'])}"
    yield table(title, ["", "bytes"], rows)
    traffic = sum(part["traffic"] for part in document["offloaded"])
    yield f"{format_bytes(traffic)} pass the device's link in a step"
    if drives := sum(part["drive_traffic"] for part in document["offloaded"]):
        yield f"{format_bytes(drives)} pass the drives' link"
