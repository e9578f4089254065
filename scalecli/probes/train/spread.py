"""One training on several devices: a process each, started by torchrun, each with its part of every batch.

`ddp` keeps the whole training on every device and averages the gradients, which lie in one buffer, in one go.
`zero3` shards weights, gradients and moments (`sharded.py`), for models whose training fits no single device.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from scalecli.errors import ProbeError
from scalecli.probes.engines.process import Sharding
from scalecli.probes.subjects.subject import Batch, Subject

PATIENCE = timedelta(days=30)
"""A process waits so long for the others: whoever started them notices earlier that they hang."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """The part of this process: everything, unless torchrun started it."""

    rank: int = 0
    world: int = 1
    sharding: Sharding = "ddp"

    @classmethod
    def joined(cls, device_type: str, sharding: Sharding) -> Spread:
        """With the others that torchrun started."""
        if "RANK" not in os.environ:
            return cls()
        backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE)
        return cls(distributed.get_rank(), distributed.get_world_size(), sharding)

    def device(self, name: str) -> str:
        """The device of this process: torchrun's processes see the same ones."""
        return f"cuda:{self.rank}" if name == "cuda" and self.world > 1 else name

    def told(self, what: T) -> T:
        """What the first process says, in every process."""
        said = [what]
        if self.world > 1:
            distributed.broadcast_object_list(said, device=torch.device("cpu"))
        return said[0]

    def averaged(self, values: Tensor) -> Tensor:
        """The mean over the processes, in place."""
        if self.world > 1:
            distributed.all_reduce(values)
            values /= self.world
        return values

    def own_examples(self, examples: int) -> int:
        """How many examples of a batch are this process's.

        Raises:
            ProbeError: the batch cannot be shared out evenly.
        """
        own, left = divmod(examples, self.world)
        if left:
            raise ProbeError(
                f"a batch of {examples} sequences cannot be shared out to {self.world} devices",
                hint="use a number of devices that divides the batch",
            )
        return own

    def own_part(self, subject: Subject, batch: Batch) -> Batch:
        return batch if self.world == 1 else subject.parts(batch, self.world)[self.rank]
