"""`scalecli quickstart`: the whole way on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.progress import sweep_progress
from scalecli.cli.render import show, span, table, warn
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType


def quickstart(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the runs, fits, plan and summary.")
    ] = Path("quickstart"),
    minutes: Annotated[float, typer.Option("--minutes", min=0.5, help="About how long it may take.")] = 5.0,
    data: options.Data = "builtin:python",
    device: options.Device = "auto",
    interval: options.Level = 0.9,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Measure, fit, plan, and check the plan: small trainings on this machine, laws through them, a plan for a larger
    model, and that model trained as recommended and otherwise.

    Run again with the same options it goes on where it was stopped.

    Example: scalecli quickstart --minutes 5 --out demo
    """
    from scalecli.quickstart import Settings
    from scalecli.quickstart import quickstart as go

    settings = Settings(minutes=minutes, seed=seed, device=device, data=data, interval=interval)
    with sweep_progress() as on_progress:
        document = go(out, settings, announce=warn, on_progress=on_progress)
    show(document, _draw, as_json=as_json)
    warn(f"everything is in {out}: begin with {out / 'summary.md'}")


def _draw(document: Any) -> Iterator[RenderableType]:
    from scalecli.export.quickstart import verdict

    target, recommended, measured = document["target"], document["recommended"], document["measured"]
    title = f"Target: {format_count(target['params'])} parameters on {format_count(target['tokens'])} tokens"
    plan = document["plan"]
    rows = [
        ("batch [tokens]", span(plan["batch_tokens"], format_count), f"run as {recommended['batch_tokens']}"),
        ("peak learning rate", span(plan["learning_rate"]), f"run as {recommended['learning_rate']:.3g}"),
        ("loss [nats/token]", span(document["predicted"]), f"measured {measured['loss']:.4f}"),
    ]
    yield table(title, ["", "planned", ""], rows)
    yield f"{verdict(document)}."
    if measured["seed_std"] is not None:
        yield (
            f"seeds differ by {measured['seed_std']:.4f} (standard deviation of {len(measured['losses'])}); "
            f"the held-out set's standard error, shared by all runs, is {measured['evaluation_std']:.4f}"
        )
    heads = ["alternative", "batch [tokens]", "learning rate", "loss", "recommended is better by"]
    yield table("What the recommendation gains", heads, map(_rival, document["alternatives"]))


def _rival(rival: Any) -> tuple[object, ...]:
    gain = None if rival["gain"] is None else f"{rival['gain']:+.4f}"
    loss = rival["status"] if rival["loss"] is None else f"{rival['loss']:.4f}"
    return rival["name"], rival["batch_tokens"], f"{rival['learning_rate']:.3g}", loss, gain
