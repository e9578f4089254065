"""`scalecli probe device`: what this machine's device reaches, for plans on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, table, warn
from scalecli.units import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.probes.speed.estimate import Product, Speeds


def device(
    device: options.Device = "auto",
    name: Annotated[
        str, typer.Option("--name", help="What plans are to call it: --accelerator NAME.")
    ] = "this-machine",
    accelerator: Annotated[
        str | None,
        typer.Option("--accelerator", help="What the catalogue calls it: its peaks and power are kept."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of a product.")] = 1,
    collectives: Annotated[
        bool,
        typer.Option(help="Also time an all-reduce over the GPUs, or over two processes of the CPU."),
    ] = True,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Measure matrix products by shape, memory bandwidth, launches and collectives, and keep them for plans.

    What is found is an accelerator of its own from then on; --out writes it as a file for --accelerators too.

    Examples:

      scalecli probe device                                   (then: scalecli plan ... --accelerator this-machine)

      scalecli probe device --device cuda --accelerator h100-80g --name our-h100 --out our-h100.toml
    """
    from scalecli.data.catalogue import accelerator as named
    from scalecli.data.catalogue.devices import measured_file
    from scalecli.export.files import write_text
    from scalecli.probes.speed.estimate import accelerator_entry, toml_entry
    from scalecli.probes.speed.run import run

    known = None if accelerator is None else named(accelerator)
    speeds = run(device, threads=threads, collectives=collectives, on_product=_tell)
    entry = accelerator_entry(speeds, known)
    kept = measured_file(name)
    for path in (kept, out):
        if path is not None:
            write_text(path, toml_entry(name, entry))
    show(_document(name, speeds, entry, str(kept)), _draw, as_json=as_json)


def _tell(product: Product) -> None:
    size = f"{product.m} × {product.k} × {product.n}"
    warn(f"{product.dtype} {size}: {format_count(product.flops_per_second)} FLOP/s")


def _document(name: str, speeds: Speeds, entry: dict[str, Any], kept: str) -> dict[str, Any]:
    from scalecli.probes.speed.estimate import model_errors, typical_error

    errors = list(model_errors(speeds))
    return {
        "schema": "scalecli/probe-device/1",
        "name": name,
        **asdict(speeds),
        "products": [
            {**asdict(product), "flops_per_second": product.flops_per_second, "model_error": error}
            for product, error in errors
        ],
        "model_error": typical_error([error for _, error in errors]),
        "ridge_flops_per_byte": max(entry["peak_flops"].values()) / speeds.memory_bandwidth,
        "accelerator": entry,
        "record": kept,
    }


def _draw(document: Any) -> Iterator[RenderableType]:
    heads = ["format", "m × k × n", "FLOP/s", "time model is off by"]
    rows = (
        (
            each["dtype"], f"{each['m']} × {each['k']} × {each['n']}", format_count(each["flops_per_second"]),
            f"{each['model_error']:+.0%}",
        )
        for each in document["products"]
    )  # fmt: skip
    yield table(f"Matrix products on {document['device']}", heads, rows)
    rates = [
        ("memory", f"{format_bytes(document['memory_bandwidth'])}/s"),
        ("launch", f"{1e6 * document['launch_seconds']:.1f} µs"),
        ("roofline's ridge", f"{document['ridge_flops_per_byte']:.1f} FLOP a byte"),
    ]
    for label, key in (("host to device", "host_bandwidth"), ("all-reduce, a rank", "collective_bandwidth")):
        if document[key] is not None:
            rates.append((label, f"{format_bytes(document[key])}/s"))
    yield table("Rates", ["", ""], rates)
    share = document["accelerator"]["kernel_efficiency"]
    yield f"large products reach {share:.0%} of the peak; plans take it from --accelerator {document['name']}"
    yield f"kept in {document['record']}"
