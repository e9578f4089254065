"""All weights of a training in one buffer, all gradients in another that is laid out alike.

What is updated weight by weight is then a few long vectors, whatever the number of matrices: on small models the
update of many small ones takes longer than its arithmetic.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scalecli.probes.subjects.subject import Subject, Weight
from scalecli.probes.train.spread import Spread

ALIGNMENT = 4
"""Every parameter begins at a multiple of so many float32 numbers, 16 bytes, as compiled code takes for granted. What
lies between them is zero, has no gradient and stays zero."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Weights that are updated alike: at the same multiple of the run's rate, decaying or not."""

    decays: bool
    rate: float

    @classmethod
    def of(cls, weight: Weight) -> Kind:
        return cls(weight.role != "vector", weight.rate)


@dataclass(frozen=True, slots=True)
class Flat:
    """Weights and gradients (c, n) that the trained parameters and their gradients are views of, kind after kind."""

    weights: Tensor
    gradients: Tensor
    parameters: dict[str, nn.Parameter]
    spans: dict[str, slice]
    kinds: dict[Kind, slice]

    @classmethod
    def of(cls, subject: Subject) -> Flat:
        """Moves the model's trained parameters into one buffer, and gives them gradients in another for good."""
        kind_of = kinds_of(subject)
        parameters = {name: value for name, value in subject.model.named_parameters() if name in kind_of}
        order = sorted(parameters, key=lambda name: (kind_of[name].decays, kind_of[name].rate))
        spans, end = {}, 0
        for name in order:
            spans[name] = slice(end, end + parameters[name].numel() // subject.copies)
            end = _aligned(spans[name].stop)
        first = parameters[order[0]]
        weights = torch.zeros(subject.copies, end, device=first.device, dtype=first.dtype)
        made = cls(weights, torch.zeros_like(weights), parameters, spans, _joined(kind_of, spans))
        for parameter, value, gradient in zip(
            parameters.values(), made.by_parameter(weights), made.by_parameter(made.gradients), strict=True
        ):
            parameter.data = value.copy_(parameter.detach())
            parameter.grad = gradient
        if subject.copies > 1:  # rows of one copy lie together, those of one parameter do not
            warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout")
        return made

    def by_parameter(self, buffer: Tensor) -> list[Tensor]:
        """What is each trained parameter's in a buffer (c, n) of this layout, in the order of the model."""
        return [buffer[:, self.spans[name]].view(value.shape) for name, value in self.parameters.items()]

    def leaves(self, copy: int) -> Iterator[tuple[Kind, nn.Parameter]]:
        """The weights of a copy, those of one kind in one vector, each with its gradient."""
        for kind, span in self.kinds.items():
            leaf = nn.Parameter(self.weights[copy, span])
            leaf.grad = self.gradients[copy, span]
            yield kind, leaf

    def zero_gradients(self) -> None:
        self.gradients.zero_()

    def average_gradients(self, spread: Spread) -> None:
        """Over the processes of a training."""
        spread.averaged(self.gradients)

    @torch.no_grad()
    def clip_gradients(self, limit: float) -> None:
        """Scales each copy's gradient to a norm of at most `limit`, as torch's clip_grad_norm_ does."""
        norms = self.gradients.norm(dim=1, keepdim=True)
        self.gradients.mul_((limit / (norms + 1e-6)).clamp(max=1.0))


def kinds_of(subject: Subject) -> dict[str, Kind]:
    """The kind of every trained parameter, by name; leaves gradients of zero."""
    for parameter in subject.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    return {weight.name: Kind.of(weight) for weight in subject.weights(0)}


def _joined(kind_of: dict[str, Kind], spans: dict[str, slice]) -> dict[Kind, slice]:
    """Each kind from its first parameter to its last."""
    found: dict[Kind, slice] = {}
    for name, span in spans.items():
        kind = kind_of[name]
        found[kind] = slice(found.get(kind, span).start, _aligned(span.stop))
    return found


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
