"""Warnings about a run table that is readable but may not mean what it says."""

from __future__ import annotations

import re
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
MILLIONS = 30.0
"""A median of more parameters than this, but fewer than TOO_FEW, are millions rather than billions."""
FROZEN_SOURCE = "chatelain2021"
TOO_MUCH_LOSS = 20.0
"""Nats per token: more than the logarithm of any vocabulary."""
METRIC_WORDS = frozenset({
    "acc", "accuracy", "auc", "bleu", "chrf", "em", "f1", "fid", "map", "mmlu", "pass", "precision", "recall", "reward",
    "rouge", "score", "wer", "win",
})  # fmt: skip
"""Words in the name of a column that holds a score of a task and not a loss."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A soft failure: `code` is `W-...`, which scripts may match, `message` the fact with numbers."""

    code: str
    message: str


def mapping_notes(mapping: Mapping[str, str]) -> list[Notice]:
    """What the names of mapped columns say against their use."""
    notes = []
    for name, source in mapping.items():
        folded = source.casefold()
        if name == "batch_tokens" and "seq" in folded:
            fact = f"batch_tokens is read from {source}, whose name says sequences"
            notes.append(Notice("W-BATCH-UNIT", f"{fact}: map batch_sequences and sequence_length instead"))
        if name == "loss" and METRIC_WORDS & set(re.split("[^a-z0-9]+", folded)):
            notes.append(
                Notice(
                    "W-METRIC",
                    f"loss is read from {source}, whose name says a score: laws are of losses, and a score does not "
                    "follow the loss (ghorbani2021: BLEU; an accuracy rises where a loss falls): fit the loss first",
                )
            )
        if name == "loss" and ("bpb" in folded or "bits" in folded):
            fact = f"loss is read from {source}, whose name says bits"
            notes.append(
                Notice(
                    "W-LOSS-UNIT",
                    f"{fact}: loss is in nats per token (--unit loss=0.6931 for bits per token)",
                )
            )
        if name == "loss" and ("ppl" in folded or "perplexity" in folded):
            fact = f"loss is read from {source}, whose name says perplexity"
            notes.append(
                Notice("W-LOSS-UNIT", f"{fact}: --map perplexity={source}, and the loss is its logarithm")
            )
    return notes


def table_notes(frame: pd.DataFrame) -> list[Notice]:
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
            factor = "1e6" if name != "tokens" and np.median(columns[name]) > MILLIONS else "1e9"
            notes.append(
                Notice("W-UNIT", f"{fact}: is the column in millions or billions? (--unit {name}={factor})")
            )
    return (
        notes + _frozen_notes(columns) + _loss_notes(columns) + _batch_notes(columns) + _flops_notes(columns)
    )


def _frozen_notes(columns: Mapping[str, NDArray[np.float64]]) -> list[Notice]:
    if "params_frozen" not in columns:
        return []
    fact = f"{np.median(columns['params_frozen']):.3g} parameters of the median run are frozen"
    return [
        Notice(
            "W-FROZEN-PARAMS",
            f"{fact}: params counts trained weights only, as laws want it ({FROZEN_SOURCE})",
        )
    ]


def _loss_notes(columns: Mapping[str, NDArray[np.float64]]) -> list[Notice]:
    if "loss" not in columns or np.median(columns["loss"]) <= TOO_MUCH_LOSS:
        return []
    fact = f"half of the losses are above {TOO_MUCH_LOSS:g} nats per token, which no vocabulary allows"
    return [Notice("W-LOSS-UNIT", f"{fact}: a percentage, or a sum? (--unit loss=0.01 for per cent)")]


def _batch_notes(columns: Mapping[str, NDArray[np.float64]]) -> list[Notice]:
    if {"tokens", "steps", "batch_tokens"} <= columns.keys():
        ratio = columns["tokens"] / (columns["steps"] * columns["batch_tokens"])
        length = columns.get("sequence_length", np.ones_like(ratio))
        sequences = (length > 1) & (np.abs(ratio / length - 1) < STEP_MISMATCH)
        if sequences.any():
            one = float(np.median(length[sequences]))
            fact = f"tokens are {one:g} (one sequence) times steps x batch_tokens"
            mend = f"--unit batch_tokens={one:g}"
            if not sequences.all():
                fact += f" in {int(sequences.sum())} of {len(ratio)} runs"
                mend = "multiply these by their sequence_length"
            return [Notice("W-BATCH-UNIT", f"{fact}: batch_tokens looks like sequences ({mend})")]
        middle = float(np.median(ratio))
        if abs(middle - 1) > STEP_MISMATCH:
            fact = f"tokens are {middle:.3g} times steps x batch_tokens in the median run"
            return [Notice("W-BATCH-UNIT", f"{fact}: is a batch in sequences, or a ramp of the batch?")]
    elif {"batch_tokens", "sequence_length"} <= columns.keys():
        short = int(np.sum(columns["batch_tokens"] < columns["sequence_length"]))
        if short:
            return [
                Notice(
                    "W-BATCH-UNIT",
                    f"batch_tokens is below sequence_length in {short} runs: is it in sequences?",
                )
            ]
    return []


def _flops_notes(columns: Mapping[str, NDArray[np.float64]]) -> list[Notice]:
    if not {"flops", "params", "tokens"} <= columns.keys() or "params_active" in columns:
        return []
    ratio = float(np.median(columns["flops"] / (6 * columns["params"] * columns["tokens"])))
    if 1 / FLOPS_MISMATCH <= ratio <= FLOPS_MISMATCH:
        return []
    return [
        Notice(
            "W-FLOPS", f"flops are {ratio:.3g} times 6 x params x tokens in the median run: check the units"
        )
    ]


def _all_positive(values: pd.Series[float]) -> NDArray[np.float64] | None:
    if values.dtype.kind not in "fiu" or not len(values):
        return None
    numbers = np.asarray(values.to_numpy(), dtype=np.float64)
    return numbers if bool(np.all(np.isfinite(numbers) & (numbers > 0))) else None
