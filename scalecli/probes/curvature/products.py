"""Products of the Hessian of a batch's mean loss with vectors, by differentiating the gradient once more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scalecli.probes.subjects.subject import Batch
from scalecli.probes.train.trainer import Trainer


class HessianProducts:
    """`times(v)` is H v for flat vectors (n,) in float64; with `divisors` D the similar D^-1/2 H D^-1/2.

    The latter has the eigenvalues of D^-1 H, which is what an update divided by D sees. `parts` are pieces of one batch
    with as many examples each, differentiated one after another.
    """

    def __init__(
        self, trainer: Trainer, parts: Sequence[Batch], *, divisors: Sequence[Tensor] | None = None
    ) -> None:
        self._trainer = trainer
        self._parameters = list(trainer.flat.parameters.values())
        self._parts = parts
        self._scale = None if divisors is None else flat(divisors).double().rsqrt()

    @property
    def size(self) -> int:
        """Weights of the model."""
        return sum(parameter.numel() for parameter in self._parameters)

    def times(self, vector: Tensor) -> Tensor:
        scaled = vector if self._scale is None else self._scale * vector
        product = self._hessian_times(scaled)
        return product if self._scale is None else self._scale * product

    def _hessian_times(self, vector: Tensor) -> Tensor:
        directions = [
            part.view_as(parameter).to(parameter.dtype)
            for part, parameter in zip(
                vector.split([each.numel() for each in self._parameters]), self._parameters, strict=True
            )
        ]
        total = torch.zeros_like(vector)
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            for part in self._parts:
                loss = self._trainer.losses(part).mean() / len(self._parts)
                gradients = torch.autograd.grad(loss, self._parameters, create_graph=True)
                slope = sum(
                    (gradient * direction).sum()
                    for gradient, direction in zip(gradients, directions, strict=True)
                )
                total += flat(torch.autograd.grad(slope, self._parameters)).double()
        return total


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All values one after another."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
