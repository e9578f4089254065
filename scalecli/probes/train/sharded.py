"""ZeRO-3: weights, gradients and moments in shards over all processes, by torch's `fully_shard` (FSDP2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.subjects.subject import Subject
from scalecli.probes.train.flat import kinds_of
from scalecli.probes.train.optimizers import ELEMENTWISE, elementwise_optimizer, group_of
from scalecli.probes.train.spread import Spread


@dataclass(frozen=True, slots=True)
class Sharded:
    """Weights in shards; every backward pass leaves their gradients averaged over the processes."""

    parameters: list[nn.Parameter]

    def zero_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def average_gradients(self, spread: Spread) -> None:
        """Nothing: they are."""

    def clip_gradients(self, limit: float) -> None:
        nn.utils.clip_grad_norm_(self.parameters, limit)


def shard(subject: Subject, config: ProbeConfig, world: int) -> tuple[Sharded, list[torch.optim.Optimizer]]:
    """Shards the subject's model in place, block by block; with an optimizer for the shards.

    Raises:
        ProbeError: the optimizer looks at whole matrices, or there are several copies.
    """
    if config.optimizer.name not in ELEMENTWISE or subject.copies > 1:
        raise ProbeError(
            f"{config.optimizer.name} with {subject.copies} copies cannot train in shards",
            hint=f"--sharding ddp, or one of {', '.join(ELEMENTWISE)}",
        )
    kind_of = kinds_of(subject)
    for parameter in subject.model.parameters():
        parameter.grad = None
    blocks = [
        block for module in subject.model.modules() if isinstance(module, nn.ModuleList) for block in module
    ]
    for module in [*reversed(blocks), subject.model]:
        # Outside of a pass all weights are in shards, where averages of them can be put: the outermost, too.
        fully_shard(
            module,
            reshard_after_forward=True,
            shard_placement_fn=lambda parameter: _placement(parameter, world),
        )
    leaves = {name: value for name, value in subject.model.named_parameters() if name in kind_of}
    groups = [group_of(kind_of[name], config, leaf) for name, leaf in leaves.items()]
    return Sharded(list(leaves.values())), [elementwise_optimizer(groups, config.optimizer)]


def _placement(parameter: nn.Parameter, world: int) -> Shard | None:
    """By rows; our decoder's weights have one copy in front of them. None: by the first axis, evenly or not."""
    by_rows = parameter.ndim > 1 and parameter.shape[0] == 1 and parameter.shape[1] % world == 0
    return Shard(1) if by_rows else None
