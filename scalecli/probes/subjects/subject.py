"""What a trainer trains: a model with its weights, its data and its loss, or several copies of it side by side.

Shapes: c copies, b examples of a batch. An example is a sequence of tokens, or whatever a task of the user's says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from scalecli.probes.parametrization import Role

Batch = Any
"""A tensor, or tuples, lists and dicts of tensors."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One logical weight of one copy: views of the parameter that holds it and of its gradient.

    `rate` multiplies the run's learning rate; weights of role `vector` do not decay, those of role `hidden` are the
    matrices of Muon.
    """

    name: str
    role: Role
    value: Tensor
    grad: Tensor
    rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Stratum:
    """A stretch of the held-out examples: how many, and what their mean counts in the held-out loss."""

    name: str
    share: float
    examples: int


class Subject(Protocol):
    """A batch depends on seed and step alone, so that a training can be branched, stopped and taken up again."""

    copies: int

    @property
    def model(self) -> nn.Module:
        """The same module for the whole training."""

    @property
    def static(self) -> bool:
        """Are a step's operations the same whatever the values? Only then can it be compiled, or recorded."""

    def compile(self) -> None:
        """Has what a step spends its time on compiled, when it is first called."""

    @property
    def guessing(self) -> float:
        """The loss of a model that knows nothing: a run that ends above it has diverged."""

    @property
    def hopeless(self) -> float:
        """A training loss above this counts as diverged on the way."""

    def weights(self, copy: int) -> Iterator[Weight]:
        """The trained weights of one copy, once gradients are allocated."""

    def batch(self, step: int) -> Batch:
        """The training batch of a step, on the device; makes what is random in the step depend on it alone."""

    def parts(self, batch: Batch, count: int) -> Sequence[Batch]:
        """The batch cut into `count` parts of as many examples each."""

    def losses(self, batch: Batch) -> Tensor:
        """The loss of every example, (c, b)."""

    def held_out(self) -> Iterable[Batch]:
        """The fixed held-out examples, in parts that fit the device."""

    def strata(self) -> Sequence[Stratum]:
        """What the held-out examples are, in their order: one stratum, or one for every domain of a mixture."""

    def after_step(self) -> None:
        """What has to happen once an optimizer step."""

    def watched(self) -> dict[str, nn.Module]:
        """The modules whose outputs a coordinate check compares over width, by name."""
