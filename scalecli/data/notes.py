"""Warnings about a run table that is readable but may not mean what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

STEP_MISMATCH = 0.05
"""steps x batch_tokens may miss tokens by this share (a last partial batch) before it is said."""
FLOPS_MISMATCH = 2.0
"""Recorded FLOPs may differ from 6 N D by this factor (head, attention, embeddings) before it is said."""
TOO_FEW = 1000.0
"""Fewer parameters or tokens than this in the median run look like a column in millions or billions."""


@dataclass(frozen=True, slots=True)
class Note:
    """A warning with a code that scripts may match."""

    code: str
    message: str


def mapping_notes(mapping: Mapping[str, str]) -> list[Note]:
    """What the names of mapped columns say against their use."""
    notes = []
    for name, source in mapping.items():
        folded = source.casefold()
        if name == "batch_tokens" and "seq" in folded:
            fact = f"batch_tokens is read from {source}, whose name says sequences"
            notes.append(Note("W-BATCH-UNIT", f"{fact}: map batch_sequences and sequence_length instead"))
        if name == "loss" and ("bpb" in folded or "bits" in folded):
            fact = f"loss is read from {source}, whose name says bits"
            notes.append(
                Note(
                    "W-LOSS-UNIT",
                    f"{fact}: loss is in nats per token (--unit loss=0.6931 for bits per token)",
                )
            )
    return notes


def table_notes(frame: pd.DataFrame) -> list[Note]:
    """What the values say against each other; only columns that are all positive numbers are looked at."""
    columns = {
        str(name): values for name in frame.columns if (values := _all_positive(frame[name])) is not None
    }
    notes = []
    for name in ("params", "tokens", "params_non_embedding"):
        if name in columns and np.median(columns[name]) < TOO_FEW:
            fact = (
                f"half of the runs have fewer than {TOO_FEW:g} {name} (median {np.median(columns[name]):g})"
            )
            notes.append(
                Note("W-UNIT", f"{fact}: is the column in millions or billions? (--unit {name}=1e9)")
            )
    return notes + _batch_notes(columns) + _flops_notes(columns)


def _batch_notes(columns: Mapping[str, NDArray[np.float64]]) -> list[Note]:
    if {"tokens", "steps", "batch_tokens"} <= columns.keys():
        ratio = float(np.median(columns["tokens"] / (columns["steps"] * columns["batch_tokens"])))
        length = float(np.median(columns["sequence_length"])) if "sequence_length" in columns else None
        if length is not None and length > 1 and abs(ratio / length - 1) < STEP_MISMATCH:
            fact = f"tokens are {length:g} (one sequence) times steps x batch_tokens"
            return [
                Note(
                    "W-BATCH-UNIT",
                    f"{fact}: batch_tokens looks like sequences (--unit batch_tokens={length:g})",
                )
            ]
        if abs(ratio - 1) > STEP_MISMATCH:
            fact = f"tokens are {ratio:.3g} times steps x batch_tokens in the median run"
            return [Note("W-BATCH-UNIT", f"{fact}: is a batch in sequences, or a ramp of the batch?")]
    elif {"batch_tokens", "sequence_length"} <= columns.keys():
        short = int(np.sum(columns["batch_tokens"] < columns["sequence_length"]))
        if short:
            return [
                Note(
                    "W-BATCH-UNIT",
                    f"batch_tokens is below sequence_length in {short} runs: is it in sequences?",
                )
            ]
    return []


def _flops_notes(columns: Mapping[str, NDArray[np.float64]]) -> list[Note]:
    if not {"flops", "params", "tokens"} <= columns.keys() or "params_active" in columns:
        return []
    ratio = float(np.median(columns["flops"] / (6 * columns["params"] * columns["tokens"])))
    if 1 / FLOPS_MISMATCH <= ratio <= FLOPS_MISMATCH:
        return []
    return [
        Note("W-FLOPS", f"flops are {ratio:.3g} times 6 x params x tokens in the median run: check the units")
    ]


def _all_positive(values: pd.Series[float]) -> NDArray[np.float64] | None:
    if values.dtype.kind not in "fiu" or not len(values):
        return None
    numbers = np.asarray(values.to_numpy(), dtype=np.float64)
    return numbers if bool(np.all(np.isfinite(numbers) & (numbers > 0))) else None
