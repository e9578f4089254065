"""Number formats of a training: bytes of weights, gradients, optimizer states and activations, and of products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Precision = Literal["bf16", "bf16-autocast", "fp32", "fp16-unit", "fp8", "fp8-unit", "fp8-lm"]
Stored = Literal["fp32", "bf16", "fp16", "fp8"]
"""Formats that moments or gradients can be kept in, where they are not those of the precision."""

STORED_BYTES: dict[Stored, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Bytes of one value of each kind."""

    weights: int
    """Stored weights."""
    stream: int
    """The residual stream, which has the type of the embedding."""
    computed: int
    """Results of matrix products."""
    operand: int
    """Operands of the matrix products inside layers."""
    gradients: int
    """Stored gradients of weights."""
    moments: tuple[int, int]
    """First and second moment of the optimizer."""
    peak: str
    """The accelerator's number format for products inside layers."""
    peak_outside: str
    """The same for attention and head."""
    rescales: bool = False
    """Operands are scaled by their measured maxima, which takes a pass over each."""
    source: str = ""
    """Key of the publication, for formats that are one's recipe."""


def _wide(size: int, peak: str) -> Formats:
    return Formats(
        weights=size, stream=size, computed=size, operand=size, gradients=size, moments=(size, size), peak=peak,
        peak_outside=peak,
    )  # fmt: skip


EIGHT_BIT = replace(_wide(2, "bf16"), operand=1, peak="fp8")
"""Products inside layers read fp8 operands; everything else is bfloat16."""

PRECISIONS: dict[Precision, Formats] = {
    "fp32": _wide(4, "fp32"),
    "bf16": _wide(2, "bf16"),
    # Weights stay in float32 and are cast for every product.
    "bf16-autocast": replace(_wide(4, "bf16"), computed=2, operand=2),
    # Unit scaling makes float16 feasible without loss scaling (Blake et al., 2303.11257).
    "fp16-unit": _wide(2, "fp16"),
    # Scales from the maxima of tensors, as in Micikevicius et al. (2209.05433) and Transformer Engine.
    "fp8": replace(EIGHT_BIT, rescales=True, source="micikevicius2022"),
    # Static scales: hidden products in fp8, embedding and head in bfloat16 (Narayan et al., 2502.05967).
    "fp8-unit": replace(EIGHT_BIT, source="narayan2025"),
    # Master weights in fp16 with a scale, gradients and first moment in fp8, second moment in fp16: 6 bytes a weight
    # (Peng et al., 2310.18313, section 2.2).
    "fp8-lm": replace(EIGHT_BIT, gradients=1, moments=(1, 2), rescales=True, source="peng2023"),
}
