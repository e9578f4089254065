"""`scalecli optimizers`: what each optimizer costs beside the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.model import wished_shape
from scalecli.cli.render import filled_table, show
from scalecli.units import format_bytes, format_count, parse_count

if TYPE_CHECKING:
    from rich.console import RenderableType

BATCH_TOKENS = 500_000


def optimizers(
    params: options.Params = None,
    params_kind: options.ParamsKind = "total",
    layers: options.Layers = None,
    width: options.Width = None,
    ffn: options.Ffn = None,
    heads: options.Heads = None,
    kv_heads: options.KvHeads = None,
    vocab: options.Vocab = 32000,
    batch_tokens: Annotated[
        float | None,
        typer.Option(
            "--batch-tokens", parser=options.quantity(parse_count), metavar="B", help="Tokens a step."
        ),
    ] = None,
    sequence_length: options.SequenceLength = 2048,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Say for every optimizer the bytes of its states, the FLOPs of a step, and what data-parallel replicas exchange.

    Example: scalecli optimizers --params 1B --batch-tokens 500k
    """
    from scalecli.plan.optimizer_cost import optimizer_costs

    shape = wished_shape(params, params_kind, layers, width, ffn, heads, kv_heads, vocab)
    batch = batch_tokens or BATCH_TOKENS
    found = optimizer_costs(shape, batch_tokens=batch, sequence_length=sequence_length)
    document = {
        "schema": "scalecli/optimizers/1",
        "params": shape.params,
        "batch_tokens": batch,
        "optimizers": [options.plain(cost) for cost in found],
    }
    show(document, _draw, as_json=as_json, out=out)


def _draw(document: Any) -> Iterator[RenderableType]:
    title = (
        f"Optimizers at {format_count(document['params'])} parameters and {format_count(document['batch_tokens'])} "
        "tokens a step"
    )
    heads = ["", "states", "FLOPs of a step", "of forward and backward", "exchanged a step", "note", "source"]
    rows = (
        (
            cost["name"], format_bytes(cost["state_bytes"]), f"{cost['step_flops']:.3g}", f"{cost['share']:.2%}",
            format_bytes(cost["traffic_bytes"]), cost["note"], cost["source"],
        )
        for cost in document["optimizers"]
    )  # fmt: skip
    yield filled_table(title, heads, rows)
