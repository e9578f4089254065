"""muP for layers that are no dense matrices: each factor learns by its own fan-in.

A structured layer is a product of small dense matrices. Under Adam each wants a rate in inverse proportion to its
own fan-in, and a start whose standard deviation keeps activations and updates of order one; a dense layer's rate
given to all of them is too small by the ratio of fan-ins. Qiu et al. 2024 (2406.06248), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scalecli.errors import PlanError

SOURCE = "qiu2024"


@dataclass(frozen=True, slots=True)
class Factor:
    """One dense piece of a layer, as one of its blocks sees it."""

    name: str
    fan_in: float
    fan_out: float

    @property
    def initial_std(self) -> float:
        """sqrt(min(fan-in, fan-out)) / fan-in."""
        return math.sqrt(min(self.fan_in, self.fan_out)) / self.fan_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A kind of layer over a square width; `blocks` and `rank` where the kind has them."""

    kind: str = "dense"
    blocks: int | None = None
    rank: int | None = None

    def factors(self, width: float) -> list[Factor]:
        """The pieces, in the order in which they are applied. `PlanError` for numbers that make no such layer."""
        if self.kind not in KINDS:
            raise PlanError(f"there is no structure {self.kind!r}", hint=f"one of {', '.join(KINDS)}")
        found = list(KINDS[self.kind](self, width))
        if any(factor.fan_in < 1 or factor.fan_out < 1 for factor in found):
            raise PlanError(f"a width of {width:g} cannot be cut into {self.blocks} blocks")
        return found

    def _blocks(self) -> int:
        if self.blocks is None:
            raise PlanError(f"{self.kind} needs the number of its blocks", hint="--blocks 4")
        return self.blocks

    def _rank(self) -> int:
        if self.rank is None:
            raise PlanError(f"{self.kind} needs its rank", hint="--rank 64")
        return self.rank


def _dense(_: Structure, width: float) -> Iterator[Factor]:
    yield Factor("dense", width, width)


def _low_rank(layer: Structure, width: float) -> Iterator[Factor]:
    rank = layer._rank()
    yield Factor("down to the rank", width, rank)
    yield Factor("up from the rank", rank, width)


def _block_diagonal(layer: Structure, width: float) -> Iterator[Factor]:
    size = width / layer._blocks()
    yield Factor("block", size, size)


def _monarch(layer: Structure, width: float) -> Iterator[Factor]:
    size = width / layer._blocks()
    yield Factor("first blocks", size, size)
    yield Factor("second blocks", size, size)


def _kronecker(_: Structure, width: float) -> Iterator[Factor]:
    root = math.sqrt(width)
    yield Factor("first factor", root, root)
    yield Factor("second factor", root, root)


def _block_tensor_train(layer: Structure, width: float) -> Iterator[Factor]:
    root, rank = math.sqrt(width), layer._rank()
    yield Factor("first core", root, rank * root)
    yield Factor("second core", rank * root, root)


KINDS: dict[str, Callable[[Structure, float], Iterator[Factor]]] = {
    "dense": _dense,
    "low-rank": _low_rank,
    "block-diagonal": _block_diagonal,
    "monarch": _monarch,
    "kronecker": _kronecker,
    "btt": _block_tensor_train,
}
