"""What makes training steps fast on a GPU: kernels compiled for the model, and whole steps recorded as CUDA graphs.

Both change how long a step takes, and its result in the last bits at most. What they gain was measured on an H100 and
an H200 (docs/benchmarks.md). Where the limits below lie is reasoned from how long compiling takes, and from how large a
model has to be to keep a GPU busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scalecli.probes.config import ProbeConfig
from scalecli.probes.subjects.subject import Subject
from scalecli.probes.units import unit_flops

COMPILE_FLOPS = 1e16
"""Work from which compiling a block is worth some ten seconds: a minute or two of a fast GPU."""
RECORD_PARAMS = 30e6
"""Size up to which launching the kernels of a step takes longer than running them, and a graph helps."""
SHAPES = 1000
"""For so many a process compiles the same code: it trains one model after the other."""
WARM_UP_STEPS = 3
"""Steps that are taken before one is recorded, so that everything is allocated and chosen by then."""


@dataclass(frozen=True, slots=True)
class Acceleration:
    """`compiled`: forward and backward by torch's compiler. `recorded`: steps replayed as one CUDA graph."""

    compiled: bool = False
    recorded: bool = False

    @classmethod
    def of(cls, configs: Sequence[ProbeConfig], device: torch.device, processes: int) -> Acceleration:
        """What pays for these runs, trained together."""
        if device.type != "cuda":
            return cls()
        small = configs[0].shape.params <= RECORD_PARAMS
        return cls(
            compiled=unit_flops(tuple(configs)) >= COMPILE_FLOPS,
            recorded=small and processes == 1 and configs[0].optimizer.name == "adamw",
        )


def compile_step(subject: Subject) -> None:
    """Forward, loss and backward by compiled code, for the shapes of training; as they were where no compiler works."""
    # Generated code needs a C compiler at run time, which not every machine with a GPU has.
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = SHAPES
    subject.compile()


class RecordedStep:
    """A step, a function of the batch alone, that is taken a few times, recorded, and from then on replayed.

    What it reads and writes besides has to stay where it is in memory.
    """

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        self._step = step
        self._taken = 0
        self._aside = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        if self._graph is None and self._taken < WARM_UP_STEPS:
            self._taken += 1
            return self._taken_aside(batch)
        if self._graph is None:
            self._batch = batch.clone()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._losses = self._step(self._batch)
        self._batch.copy_(batch)
        self._graph.replay()
        return self._losses.clone()

    def _taken_aside(self, batch: Tensor) -> Tensor:
        """On a stream of its own, as what is to be recorded must not have been tied to the default one."""
        self._aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._aside):
            losses = self._step(batch)
        torch.cuda.current_stream().wait_stream(self._aside)
        return losses
