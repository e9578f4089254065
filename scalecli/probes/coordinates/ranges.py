"""Which number formats hold a model's values, at initialisation and after a few steps. Pure arithmetic.

Values within a format's range come out with at most its rounding error, so a tensor that comes out with a larger one
(root mean squares) has lost values that count: its format needs other scales, or another parametrisation (Blake et al.
2023, 2303.11257, section 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scalecli.probes.columns import Row

FORWARD, BACKWARD = ("weight", "activation"), ("gradient",)


@dataclass(frozen=True, slots=True)
class Use:
    """What a precision of the memory plan keeps in which format; `scaled` by tensors' maxima, or as it comes."""

    precision: str
    formats: dict[str, str]
    scaled: bool
    inside: bool
    """Inside layers only: embedding and head stay in bfloat16."""


EIGHT_BIT = dict.fromkeys(FORWARD, "e4m3") | dict.fromkeys(BACKWARD, "e5m2")
"""Micikevicius et al. (2209.05433), section 3."""
USES = (
    Use("fp16-unit", dict.fromkeys((*FORWARD, *BACKWARD, "weight gradient"), "fp16"), False, False),
    Use("fp8-unit", EIGHT_BIT, False, True),
    Use("fp8", EIGHT_BIT, True, True),
    Use("fp8-lm", {**EIGHT_BIT, "weight gradient": "e5m2"}, True, True),
)


@dataclass(frozen=True, slots=True)
class Held:
    """Does a precision hold what there was at a step? The tensor that comes out worst, of all widths."""

    precision: str
    step: int
    holds: bool
    parts: tuple[str, ...]
    """What there was: as long as the head is zero, no gradients."""
    part: str
    name: str
    width: int
    below: float
    above: float
    error: float
    rounding: float
    scales: tuple[int, int] | None
    """Exponents of the least and largest scale of a tensor, where tensors are scaled."""


def held(rows: Sequence[Row]) -> list[Held]:
    """One verdict a precision and step, from the rows of kind `range`."""
    seen = [row for row in rows if row["kind"] == "range"]
    steps = sorted({int(row["step"] or 0) for row in seen})
    return [found for step in steps for use in USES for found in _held(use, step, seen)]


def _held(use: Use, step: int, rows: Sequence[Row]) -> Iterator[Held]:
    seen = [
        row
        for row in rows
        if row["step"] == step
        and row["format"] == use.formats.get(str(row["part"]))
        and (row["inside"] or not use.inside)
    ]
    if not seen:
        return
    way = "scaled_" if use.scaled else ""
    worst = max(seen, key=lambda row: _number(row, way + "error") / _number(row, "rounding"))
    exponents = [int(_number(row, "scale_exponent")) for row in seen]
    yield Held(
        precision=use.precision,
        step=step,
        holds=_number(worst, way + "error") <= _number(worst, "rounding"),
        parts=tuple(part for part in use.formats if any(row["part"] == part for row in seen)),
        part=str(worst["part"]),
        name=str(worst["name"]),
        width=int(_number(worst, "width")),
        below=_number(worst, way + "below"),
        above=0.0 if use.scaled else _number(worst, "above"),
        error=_number(worst, way + "error"),
        rounding=_number(worst, "rounding"),
        scales=(min(exponents), max(exponents)) if use.scaled else None,
    )


def _number(row: Row, column: str) -> float:
    return float(row[column] or 0)
