"""`scalecli doctor`: what this machine has and can run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from scalecli.cli import options
from scalecli.cli.render import show, table
from scalecli.units import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType


def doctor(as_json: options.Json = False) -> None:
    """Say what this machine has and can run: devices, memory, versions, extras.

    Example: scalecli doctor --json
    """
    from scalecli.probes.machine import describe

    show(describe(), _draw, as_json=as_json)


def _draw(document: Any) -> Iterator[RenderableType]:
    rows = [
        ("Python", document["python"]),
        ("platform", document["platform"]),
        ("CPU threads", f"{document['cpu_threads']}: as many probes at a time"),
        ("memory", format_bytes(document["memory_bytes"])),
    ]
    for index, device in enumerate(document["devices"]):
        free = f"{format_bytes(device['free_bytes'])} of {format_bytes(device['memory_bytes'])} free"
        rows.append((f"cuda:{index}", f"{device['name']}, {free}"))
    if not document["devices"]:
        rows.append(("GPU", "none: probes run on the CPU"))
    yield table("This machine", ["", ""], rows)
    installed = ((name, found or "not installed") for name, found in document["versions"].items())
    yield table("Packages", ["package", "version"], installed)
    for extra, found in document["extras"].items():
        yield f"extra {extra}: " + ("installed" if found else f"missing; pip install 'scalecli[{extra}]'")
