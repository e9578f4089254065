"""`scalecli probe memory`: peak memory of a training step, measured on the device or traced without one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from scalecli.cli import options, step
from scalecli.cli.model import wished_shape
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import draw_estimate, machine_pace
from scalecli.cli.probe.measuring import kept
from scalecli.cli.render import show, table
from scalecli.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.accounting.memory import Layout, Recipe
    from scalecli.accounting.shape import ModelShape
    from scalecli.probes.foreign import ForeignShape
    from scalecli.probes.memory.trace import Trace


class Size(TypedDict):
    """What a device holds of a batch at once."""

    micro_batch_sequences: int
    sequence_length: int


LONGEST_SECONDS = 600.0
"""Of a measurement, unless the user says otherwise."""

BATCH_NORM_EXAMPLES = 16
"""Fewer on a device, and the error of batch norm rises (Wu and He, 1803.08494, figure 1)."""

MORE = (
    ("saved_for_backward_bytes", "saved for backward"),
    ("predicted_bytes", "closed forms say"),
    ("reserved_bytes", "reserved by the allocator"),
    ("used_bytes", "of the whole process or device"),
)
"""Further bytes of a document, each with its label."""


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
    model: probe.Model = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Count every tensor of a step without running it on a device.")
    ] = False,
    sequence_length: options.SequenceLength = 2048,
    micro_batch: Annotated[int, typer.Option("--micro-batch", min=1, help="Sequences held at once.")] = 1,
    device: options.Device = "auto",
    timeout: probe.Timeout = None,
    store: options.Store = Path("runs.db"),
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    **wishes: Any,
) -> None:
    """Find the peak memory of a training step: three real steps in a process of their own, or a trace.

    What was predicted and what was measured are stored together.

    Examples:

      scalecli probe memory --params 10M --sequence-length 512 --micro-batch 4 --device cpu

      scalecli probe memory --params 7B --trace

      scalecli probe memory --params 7B --trace --tp 4 --pp 2 --accumulation 8 --recompute selective

      scalecli probe memory --model hf:config.json --trace --micro-batch 4

      scalecli probe memory --model mymodels:small --width 256 --layers 8 --trace
    """
    from dataclasses import replace

    from scalecli.accounting.memory import Layout, Recipe

    recipe = Recipe(**step.values(step.RECIPE, wishes))
    layout = _layout(**step.values(step.LAYOUT, wishes))
    size: Size = {"micro_batch_sequences": micro_batch, "sequence_length": sequence_length}
    if model is not None:
        if not trace:
            raise typer.BadParameter(
                "another model is traced, not measured: add --trace", param_hint="--model"
            )
        foreign = _foreign_shape(model, layers, width, vocab, sequence_length)
        show(_traced_foreign(model, foreign, recipe, size), _draw, as_json=as_json)
        return
    if not trace and layout != Layout():
        raise typer.BadParameter("one device of a layout is traced, not measured: add --trace")
    shape = wished_shape(params, params_kind, layers, width, ffn, heads, kv_heads, vocab)
    shape = replace(shape, **step.values(step.BLOCKS, wishes))
    if dry_run:
        show(_estimate(shape, recipe, size, device, store), draw_estimate, as_json=as_json)
    elif trace:
        show(_traced(shape, recipe, layout, size), _draw, as_json=as_json)
    else:
        show(_measured(shape, recipe, size, device, timeout, store), _draw, as_json=as_json)


def _layout(**placement: Any) -> Layout:
    """One device's neighbours. The tracker knows of no data-parallel ranks but those that hold other experts, and of
    no buckets."""
    from scalecli.accounting.memory import Layout

    ep = placement["ep"]
    if ep > 1:
        placement |= {"dp": ep, "sharding": "ddp", "bucket_views": True}
    return Layout(**placement)


def _foreign_shape(
    model: str, layers: int | None, width: int | None, vocab: int, sequence_length: int
) -> ForeignShape:
    """A configuration as it is, or either kind of model at the given width and depth."""
    from scalecli.probes.family import DecoderFamily, family_of
    from scalecli.probes.subjects.causal_lm import TransformersFamily

    probe.find_own_modules()
    family = family_of(model, vocab=vocab, sequence_length=sequence_length)
    assert not isinstance(family, DecoderFamily)
    if width and layers:
        return family.sized(width, layers)
    if isinstance(family, TransformersFamily) and not (width or layers):
        return family.as_configured()
    raise typer.BadParameter("give both --width and --layers", param_hint="--model")


def _measured(
    shape: ModelShape, recipe: Recipe, size: Size, device: str, timeout: float | None, store: Path
) -> dict[str, Any]:
    """Prediction first, then the steps; one row with both goes into the store."""
    from scalecli.accounting.memory import estimate_memory
    from scalecli.probes.memory.measure import measure_training

    predicted = estimate_memory(shape, recipe, **size).peak_bytes
    found = measure_training(shape, recipe, **size, device=device, timeout_seconds=timeout or LONGEST_SECONDS)
    target = _target(shape, recipe, size)
    row = {
        "run_id": f"memory-{hashlib.sha256(json.dumps(target, sort_keys=True).encode()).hexdigest()[:16]}",
        "predicted_bytes": predicted,
        **asdict(found),
    }
    (stored,) = kept("memory", store, [{**row, **target}])
    return {
        "schema": "scalecli/probe-memory/1",
        "method": "measured",
        "target": target,
        "peak": {"bytes": found.allocated_bytes, "moment": None},
        "saved_for_backward_bytes": None,
        "predicted_bytes": predicted,
        "prediction_error": predicted / found.allocated_bytes - 1,
        **{name: stored[name] for name in ("device", "version", "reserved_bytes", "used_bytes")},
        "store": str(store),
    }


def _traced(shape: ModelShape, recipe: Recipe, layout: Layout, size: Size) -> dict[str, Any]:
    """The worst stage of a pipeline."""
    from scalecli.accounting.memory import estimate_memory
    from scalecli.probes.memory.trace import trace_training

    counted = estimate_memory(shape, recipe, layout, **size)
    found = trace_training(shape, recipe, layout, stage=counted.stage, **size)
    target = _target(shape, recipe, size) | {"layout": asdict(layout), "stage": counted.stage}
    return _trace_document(target, found, counted.peak_bytes)


def _traced_foreign(model: str, shape: ForeignShape, recipe: Recipe, size: Size) -> dict[str, Any]:
    from scalecli.probes.memory.trace import trace_foreign

    size = {**size, "sequence_length": shape.tokens_per_example or size["sequence_length"]}
    target = {"model": model, "params": shape.params, "recipe": asdict(recipe), **size}
    found = trace_foreign(shape, recipe, **size)
    document = _trace_document(target, found, None)
    if found.has_batch_norm and size["micro_batch_sequences"] < BATCH_NORM_EXAMPLES:
        message = (
            f"statistics over {size['micro_batch_sequences']} examples are noisy: ResNet-50's error was 23.6 % at 32 "
            "images a device and 34.7 % at 2, with group norm 24.1 % at both (wu2018); use that, with standardised "
            "weights (qiao2019)"
        )
        document["warnings"] = [{"code": "W-BATCH-NORM", "message": message}]
    return document


def _trace_document(target: dict[str, Any], found: Trace, predicted: int | None) -> dict[str, Any]:
    return {
        "schema": "scalecli/probe-memory/1",
        "method": "traced",
        "target": target,
        "peak": {"bytes": found.peak_bytes, "moment": found.moment},
        "peaks": found.peaks,
        "saved_for_backward_bytes": found.saved_for_backward_bytes,
        "predicted_bytes": predicted,
        "prediction_error": None if predicted is None else predicted / found.peak_bytes - 1,
    }


def _target(shape: ModelShape, recipe: Recipe, size: Size) -> dict[str, Any]:
    return {"params": shape.params, "shape": asdict(shape), "recipe": asdict(recipe), **size}


def _estimate(shape: ModelShape, recipe: Recipe, size: Size, device: str, store: Path) -> dict[str, Any]:
    """Three steps, by the closed forms and the pace of this machine."""
    from scalecli.accounting.flops import training_flops
    from scalecli.accounting.memory import estimate_memory
    from scalecli.data.corpus import load_corpus
    from scalecli.probes.device import resolve_device
    from scalecli.probes.memory.measure import STEPS
    from scalecli.probes.spec import SweepSpec
    from scalecli.probes.timing import START_SECONDS

    tokens = STEPS * recipe.accumulation * size["micro_batch_sequences"] * size["sequence_length"]
    flops = training_flops(shape, tokens, size["sequence_length"])
    spec = SweepSpec()
    pace = machine_pace(spec, load_corpus(spec.data), device)
    return {
        "schema": "scalecli/sweep-estimate/1",
        "runs": 1,
        "skipped": 0,
        "flops": flops,
        "saved_flops": 0.0,
        "seconds": START_SECONDS + STEPS * pace.overhead + pace.seconds_per_flop * flops,
        "bytes": estimate_memory(shape, recipe, **size).peak_bytes,
        "device": resolve_device(device).type,
        "slots": 1,
        "store": str(store),
    }


def _draw(document: Any) -> Iterator[RenderableType]:
    target, peak = document["target"], document["peak"]
    name = f"{target['model']}, " if "model" in target else ""
    what = f"{name}{format_count(target['params'])} parameters"
    rows = [("peak", format_bytes(peak["bytes"]))]
    if peak["moment"] is not None:
        rows.append(("highest at", peak["moment"]))
    rows += [(f"most during {name}", format_bytes(size)) for name, size in document.get("peaks", {}).items()]
    for name, label in MORE:
        if document.get(name) is not None:
            rows.append((label, format_bytes(document[name])))
    if document["prediction_error"] is not None:
        rows.append(("closed forms are off by", f"{100 * document['prediction_error']:+.2f} %"))
    yield table(f"Memory of a training step, {document['method']}: {what}", ["", ""], rows)
