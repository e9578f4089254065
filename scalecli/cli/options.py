"""Every option that more than one command has, defined once; and how quantities are read from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from scalecli.units import parse_count

T = TypeVar("T")


def quantity(parse: Callable[[str], T]) -> Callable[[str], T]:
    """A Typer parser that says what the text should have looked like."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    read.__name__ = "quantity"
    return read


def counts(items: list[str] | None, option: str) -> tuple[float, ...]:
    """`["50k,100k", "2e-3"]` as numbers; a usage error that names the option otherwise.

    >>> counts(["50k,100k"], "--params")
    (50000.0, 100000.0)
    """
    try:
        return tuple(parse_count(part) for item in items or [] for part in item.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def pairs(items: list[str] | None, option: str) -> dict[str, str]:
    """`["a=b,c=d", "e=f"]` as a mapping; a usage error that names the option otherwise.

    >>> pairs(["loss=val_loss,params=N"], "--map")
    {'loss': 'val_loss', 'params': 'N'}
    """
    found: dict[str, str] = {}
    for item in items or []:
        for pair in filter(None, (part.strip() for part in item.split(","))):
            name, equals, value = pair.partition("=")
            if not (name and equals and value):
                raise typer.BadParameter(f"{pair!r} is not of the form name=value", param_hint=option)
            found[name.strip()] = value.strip()
    return found


def numbers(items: list[str] | None, option: str) -> dict[str, float]:
    """`["params=7B,tokens=1.4T"]` as numbers.

    >>> numbers(["params=7B"], "--at")
    {'params': 7000000000.0}
    """
    found = {}
    for name, text in pairs(items, option).items():
        try:
            found[name] = parse_count(text)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from error
    return found


def one_of(text: str, choices: tuple[str, ...], option: str) -> Any:
    """The text, if it is one of the choices; a usage error that lists them otherwise."""
    if text not in choices:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(choices)}", param_hint=option)
    return text


def plain(record: Any) -> dict[str, Any]:
    """A frozen record as plain values, for a document."""
    from dataclasses import asdict

    return asdict(record)


Runs = Annotated[
    str, typer.Argument(help="A run table (.csv, .parquet, .jsonl), a store (.db), or - for standard input.")
]
FitFile = Annotated[Path, typer.Argument(help="A fit written by `scalecli fit --out`.")]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write the document to this file.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same numbers.")]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", help="Rename columns: ours=theirs[,...], e.g. loss=val_loss,params=N."),
]
Unit = Annotated[
    list[str] | None, typer.Option("--unit", help="Scale columns: column=factor[,...], e.g. tokens=1e9.")
]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", help="Keep rows: an expression over columns, e.g. \"optimizer == 'adamw'\"."),
]
Level = Annotated[
    float, typer.Option("--interval", min=0.01, max=0.999, help="Probability of the intervals.")
]
Fits = Annotated[
    list[Path] | None,
    typer.Option("--fit", help="A fit file (repeat): a loss law, a landscape, a critical batch size."),
]
Store = Annotated[Path, typer.Option("--store", help="The store that keeps the runs (created if missing).")]
Data = Annotated[str, typer.Option("--data", help="Training text: builtin:python, a file or a folder.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would run, for how long and with how much memory.")
]

Params = Annotated[
    float | None,
    typer.Option("--params", parser=quantity(parse_count), metavar="N", help="Model size, e.g. 7B."),
]
ParamsKind = Annotated[
    str,
    typer.Option(
        "--params-kind", help="What --params counts: total or non-embedding.", metavar="total|non-embedding"
    ),
]
Tokens = Annotated[
    float | None,
    typer.Option("--tokens", parser=quantity(parse_count), metavar="D", help="Training tokens, e.g. 1.4T."),
]
Flops = Annotated[
    float | None,
    typer.Option("--flops", parser=quantity(parse_count), metavar="C", help="Compute budget, e.g. 2e22."),
]
Layers = Annotated[int | None, typer.Option("--layers", min=1)]
Width = Annotated[int | None, typer.Option("--width", min=1)]
Ffn = Annotated[
    int | None, typer.Option("--ffn", min=1, help="Feed-forward width.", show_default="8/3 of the width")
]
Heads = Annotated[int | None, typer.Option("--heads", min=1)]
KvHeads = Annotated[int | None, typer.Option("--kv-heads", min=1)]
Vocab = Annotated[int, typer.Option("--vocab", min=1)]
SequenceLength = Annotated[int, typer.Option("--sequence-length", min=1, help="Tokens in one sequence.")]
CapacityFactor = Annotated[
    float,
    typer.Option(
        "--capacity-factor", min=0.0, help="Slots an expert has, relative to perfectly balanced routing."
    ),
]
DEVICES = "Devices"
Accelerator = Annotated[
    str | None,
    typer.Option(
        "--accelerator",
        help="A name of the catalogue, e.g. h100-80g; of several kinds with their numbers: a100-80g:4,v100-32g:4.",
        rich_help_panel=DEVICES,
    ),
]
DeviceCount = Annotated[
    int, typer.Option("--count", min=1, help="How many accelerators.", rich_help_panel=DEVICES)
]
AcceleratorFile = Annotated[
    Path | None,
    typer.Option(
        "--accelerators", help="A TOML file with accelerators of your own.", rich_help_panel=DEVICES
    ),
]
Assume = Annotated[
    list[str] | None,
    typer.Option(
        "--assume",
        metavar="NAME=VALUE,...",
        help="Of a step: shares of communication that hide (tensor, expert, pipeline, context, data), reduction=NAME "
        "of compressed gradients, dispatch_width of tokens sent to experts, bytes/s of host and drive links.",
        rich_help_panel=DEVICES,
    ),
]
