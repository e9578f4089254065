"""A task of the user's own as a subject: `--model package.module:factory`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from scalecli.errors import DataError, ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.family import layers_of
from scalecli.probes.foreign import ForeignShape
from scalecli.probes.subjects import plain
from scalecli.probes.subjects.subject import Batch, Stratum, Weight
from scalecli.probes.task import Task, build_task, content_of

HOPELESS_FACTOR = 10.0
"""A training loss this many times that of the untrained model counts as diverged: losses have any unit here."""
COUNTED_EXAMPLES = 2
"""FLOPs are counted on so many: batch norm refuses to train on a single value."""
EVALUATION_EXAMPLES = 256
"""Examples evaluated at once."""


@dataclass(frozen=True, slots=True)
class OwnFamily:
    """Every width of one factory."""

    spec: str
    aspect: float

    def member(self, width: int) -> ForeignShape:
        return self.sized(width, layers_of(width, self.aspect))

    def widened(self, shape: ForeignShape, width: int) -> ForeignShape:
        return self.sized(width, shape.layers)

    def sized(self, width: int, layers: int) -> ForeignShape:
        """Raises ProbeError when there is no such factory, or what it returns cannot be trained."""
        return _counted(self.spec, width, layers)


class OwnTask:
    """One task with its batches.

    Raises:
        ProbeError: the task is not the one that the run was planned for, or breaks its contract.
    """

    copies = 1
    static = False  # nothing is known of how the task computes

    def __init__(self, shape: ForeignShape, config: ProbeConfig, device: torch.device) -> None:
        self._model, self._config, self._device = shape.model, config, device
        self._task = build_task(shape.model, width=shape.width, depth=shape.layers, seed=config.seed)
        if content_of(shape.model, self._task) != shape.content:
            raise ProbeError(
                f"{shape.model} or its data have changed since this run was planned",
                hint="plan the run anew: its results would be another model's",
            )
        self.model = self._task.model.to(device, torch.float32)
        self._stream = _Stream(self._task, config)
        self.guessing = self._untrained_loss()
        self.model.train()

    @property
    def hopeless(self) -> float:
        return self.guessing + HOPELESS_FACTOR * abs(self.guessing)

    def weights(self, copy: int) -> Iterator[Weight]:
        return plain.weights_of(self.model, rates=self._task.rates)

    def batch(self, step: int) -> Batch:
        plain.make_repeatable(self._config.seed, step)
        return self._placed(self._stream.at(step))

    def parts(self, batch: Batch, count: int) -> Sequence[Batch]:
        def part(index: int) -> Batch:
            return mapped(batch, lambda tensor: tensor.chunk(count)[index])

        return [part(index) for index in range(count)]

    def compile(self) -> None:
        """Nothing."""

    def losses(self, batch: Batch) -> Tensor:
        losses = self._task.losses(self.model, batch)
        if losses.ndim != 1:
            raise ProbeError(
                f"{self._model} gives losses of shape {tuple(losses.shape)}",
                hint="return the loss of every example, shape (b,): reduction='none'",
            )
        return losses[None]

    def held_out(self) -> Iterator[Batch]:
        """The first examples of the validation split: the same each time."""
        wanted = self._config.evaluation.sequences
        size = min(wanted, EVALUATION_EXAMPLES)
        batches = list(islice(self._task.batches("validation", size, 0), self._examples // size))
        if len(batches) * size < self._examples:
            raise DataError(
                f"the validation split gives {len(batches) * size} examples, the evaluation wants {wanted}",
                hint="fewer evaluation sequences, or more validation data",
            )
        return (self._placed(batch) for batch in batches)

    def strata(self) -> Sequence[Stratum]:
        return [Stratum("", 1.0, self._examples)]

    @property
    def _examples(self) -> int:
        """Held-out examples: as many as wanted, in whole batches."""
        wanted = self._config.evaluation.sequences
        size = min(wanted, EVALUATION_EXAMPLES)
        return -(-wanted // size) * size

    def after_step(self) -> None:
        """Nothing."""

    def watched(self) -> dict[str, nn.Module]:
        return plain.watched(self.model)

    def _placed(self, batch: Batch) -> Batch:
        return mapped(batch, lambda tensor: tensor.to(self._device))

    @torch.no_grad()
    def _untrained_loss(self) -> float:
        self.model.eval()
        return float(torch.cat([self.losses(part) for part in self.held_out()], dim=1).double().mean())


class _Stream:
    """The training batches by step; going back begins anew."""

    def __init__(self, task: Task, config: ProbeConfig) -> None:
        self._task, self._config = task, config
        self._next, self._batches = 0, self._from_start()

    def at(self, step: int) -> Batch:
        if step < self._next:
            self._next, self._batches = 0, self._from_start()
        for batch in islice(self._batches, step - self._next, None):
            self._next = step + 1
            return batch
        raise DataError(
            f"the training batches end before step {step}", hint="batches('train', ...) goes on for ever"
        )

    def _from_start(self) -> Iterator[Batch]:
        return iter(self._task.batches("train", self._config.batch_sequences, self._config.seed))


def mapped(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with every tensor in it changed."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, dict):
        return {name: mapped(part, change) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)([mapped(part, change) for part in batch])
    raise ProbeError(
        f"a batch holds {type(batch).__name__}",
        hint="batches are tensors, or tuples, lists and dicts of them",
    )


@lru_cache(maxsize=256)
def _counted(spec: str, width: int, layers: int) -> ForeignShape:
    """Counts on a real model: a task need not know the meta device."""
    task = build_task(spec, width=width, depth=layers, seed=0)
    batch: Any = next(iter(task.batches("train", COUNTED_EXAMPLES, 0)))
    params = plain.trained_params(task.model)
    embeddings = plain.embedding_ids(task.model)
    outside = sum(parameter.numel() for parameter in task.model.parameters() if id(parameter) in embeddings)
    flops = plain.training_flops_of(lambda: task.losses(task.model, batch).sum())
    return ForeignShape(
        model=spec,
        content=content_of(spec, task),
        width=width,
        layers=layers,
        vocab=0,
        params=params,
        params_non_embedding=params - outside,
        params_active=params,
        flops_per_token=flops / (COUNTED_EXAMPLES * task.tokens_per_example),
        tokens_per_example=task.tokens_per_example,
    )
