"""`scalecli packing`: how much of a batch is padding, and what packing saves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from scalecli.cli import options
from scalecli.cli.render import show, table
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType


def packing(
    lengths: Annotated[
        str,
        typer.Argument(help="Lengths of documents in tokens: one a line, the first column of a .csv, or - ."),
    ],
    sequence_length: options.SequenceLength = 2048,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Sequences in a step, over all ranks.")] = 64,
    dp: Annotated[int, typer.Option("--dp", min=1, help="Data-parallel ranks that share a batch.")] = 1,
    seed: options.Seed = 0,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Say how much of a batch is padding when documents have many lengths, and the batch that is left without it.

    Learning rates and noise go by the tokens that are real. Packed sequences hold several documents each; ranks then
    have as many tokens and, because attention grows with the square of a length, not as much work.

    Examples:

      scalecli packing lengths.txt --sequence-length 4096 --batch 256 --dp 32

      wc -w corpus/*.txt | awk '{print $1}' | scalecli packing -
    """
    from dataclasses import asdict

    from scalecli.plan.packing import plan_packing

    found = plan_packing(
        read_lengths(lengths), sequence_length=sequence_length, batch_sequences=batch, ranks=dp, seed=seed
    )
    document = {
        "schema": "scalecli/packing/1",
        "sequence_length": sequence_length,
        "batch_sequences": batch,
        "data_parallel": dp,
        **asdict(found),
        "ways": [asdict(way) for way in found.ways],
    }
    show(document, draw_packing, as_json=as_json, out=out)


def read_lengths(source: str) -> list[int]:
    """Whole numbers, one a line; a first line that is none is a header. Raises BadRow with the line of another."""
    from scalecli.errors import DataError

    if source == "-":
        return _parsed(sys.stdin, "standard input")
    try:
        with Path(source).open(encoding="utf-8") as lines:
            return _parsed(lines, source)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read: {error}", hint="one length in tokens a line") from error


def _parsed(lines: TextIO, name: str) -> list[int]:
    from scalecli.errors import BadRow

    found = []
    for number, line in enumerate(lines, start=1):
        text = line.split(",")[0].strip()
        if text.isdecimal() and int(text) > 0:
            found.append(int(text))
        elif text and number > 1:
            raise BadRow(f"{text!r} is no length in tokens", file=name, line=number, field="length")
    return found


def draw_packing(document: Any) -> Iterator[RenderableType]:
    """The ways side by side."""
    title = (
        f"{document['documents']:,} documents of {document['mean_length']:.0f} tokens on average, in batches of "
        f"{document['batch_sequences']} × {document['sequence_length']} tokens"
    )
    rows = (
        (
            way["name"], f"{way['padding']:.1%}", format_count(way["effective_tokens"]), f"{way['attention']:.2f}",
            f"{way['imbalance']:.3f}",
        )
        for way in document["ways"]
    )  # fmt: skip
    heads = ["way", "padding", "effective batch [tokens]", "attention computed", "busiest rank"]
    yield table(title, heads, rows)
    if document["split"]:
        yield f"{document['split']:,} documents are longer than a sequence and are cut"
