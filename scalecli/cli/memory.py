"""`scalecli memory`: bytes, moment of the peak and layout, for a model and hardware."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.model import shape_of
from scalecli.cli.render import show, table
from scalecli.units import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType


def draw_memory(document: Any) -> Iterator[RenderableType]:
    """The tables of a memory plan."""
    peak = document["peak"]
    title = f"Memory of one device: {format_bytes(document['per_device_bytes'])}, highest at {peak['moment']}"
    rows = ((term["name"], format_bytes(term["bytes"]), term["rule"]) for term in document["terms"])
    yield table(title, ["term", "bytes", "rule"], rows)
    layout = (
        f"micro-batch {document['micro_batch_sequences']} × accumulation {document['accumulation']} "
        f"× data parallel {document['data_parallel']}; sharding {document['sharding']}, "
        f"tensor {document['tensor_parallel']}, pipeline {document['pipeline_parallel']}, "
        f"context {document['context_parallel']}, expert {document['expert_parallel']}; "
        f"recompute {document['recompute']}, {document['precision']}"
    )
    yield layout
    if document["fits"] is not None:
        verdict = "fits" if document["fits"] else "does NOT fit"
        yield f"{verdict}; headroom {format_bytes(document['headroom_bytes'])}"
