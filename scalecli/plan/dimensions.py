"""Sizes that kernels like: what a model's dimensions cost where they do not divide, and the nearest that do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from scalecli.accounting.memory import Recipe
from scalecli.accounting.shape import ModelShape

# Bytes that a row of a matrix should be a multiple of, so that tensor cores read it aligned: 128, which is 64 values
# of two bytes (NVIDIA, Matrix Multiplication Background, section 2.2; Anthony et al., 2401.14489, section 7).
ALIGNED_BYTES = 128
# Flash attention has kernels for heads of a multiple of 8 values up to 256 (Dao, 2307.08691, section 4).
HEAD_MULTIPLE, LARGEST_HEAD = 8, 256


@dataclass(frozen=True, slots=True)
class Rounding:
    """A dimension that is not aligned, and the next one that is."""

    name: str
    value: int
    rounded: int
    more_params: int

    def __str__(self) -> str:
        return f"{self.name} {self.value} → {self.rounded} ({self.more_params:+,} parameters)"


def roundings(shape: ModelShape, recipe: Recipe, tensor_parallel: int = 1) -> Iterator[Rounding]:
    """Dimensions whose part on one tensor-parallel rank is not aligned."""
    multiple = ALIGNED_BYTES // recipe.compute_bytes
    for name, field, split in (
        ("vocabulary", "vocab", tensor_parallel),
        ("feed-forward width", "ffn", tensor_parallel),
        ("width", "width", 1),
    ):
        value = getattr(shape, field)
        unit = multiple * split
        if value % unit == 0:
            continue
        rounded = -(-value // unit) * unit
        larger = _with(shape, field, rounded)
        if larger is not None:
            yield Rounding(name, value, rounded, larger.params - shape.params)


def odd_head(shape: ModelShape) -> int | None:
    """The size of a head that no attention kernel is made for; None where there is one."""
    made = shape.head_dim % HEAD_MULTIPLE == 0 and shape.head_dim <= LARGEST_HEAD
    return None if made else shape.head_dim


def _with(shape: ModelShape, field: str, value: int) -> ModelShape | None:
    """The shape with another size; None where heads do not divide it."""
    if field == "width" and value % shape.heads:
        return None
    changed: dict[str, Any] = {field: value}
    return replace(shape, **changed)
