"""A training of the user's own: what the factory behind `--model package.module:factory` returns.

    def classifier(*, width: int, depth: int, seed: int) -> Task:
        model = Net(width, depth)                     # torch's generator has been seeded with `seed`
        return Task(model=model, losses=losses, batches=batches)

The factory is called for every size of the ladder, with the width and depth that the size comes out at, and once more
in each process that trains. It builds the model and nothing large: data belong into `batches`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from scalecli.errors import ProbeError

if TYPE_CHECKING:
    from torch import Tensor, nn

Split = Literal["train", "validation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A model with its loss and its data.

    Args:
        model: float32 weights; those that require gradients are trained.
        losses: maps the model and a batch to the loss of every example, shape (b,).
        batches: `batches(split, size, seed)` yields batches of exactly `size` examples: tensors, or tuples, lists and
            dicts of tensors, whose first axis is the example. For "train" it goes on for ever and depends on the seed
            alone; for "validation" it gives the same examples for every seed.
        tokens_per_example: what one example counts, in the column `tokens`.
        fingerprint: identity of the data, such as their SHA-256; another fingerprint is another run.
        rates: multiples of the run's learning rate by name of the parameter, for a parametrization of one's own.
    """

    model: nn.Module
    losses: Callable[[Any, Any], Tensor]
    batches: Callable[[Split, int, int], Iterator[Any]]
    tokens_per_example: int = 1
    fingerprint: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)


class Factory(Protocol):
    def __call__(self, *, width: int, depth: int, seed: int) -> Task:
        """The task at that size; `seed` has been given to torch's generator already."""


def load_factory(spec: str) -> Factory:
    """The function that `package.module:function` names, found from the working directory as `python -m` finds it.

    Raises:
        ProbeError: there is no such function.
    """
    module_name, _, name = spec.partition(":")
    try:
        factory: Factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ProbeError(
            f"{spec!r} names no factory: {error}",
            hint="give package.module:function, importable from the working directory",
        ) from error
    return factory


def build_task(spec: str, *, width: int, depth: int, seed: int) -> Task:
    """The task at a size, its weights drawn from the seed alone.

    Raises:
        ProbeError: there is no such factory, it fails, or it does not return a task.
    """
    import torch

    factory = load_factory(spec)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            task = factory(width=width, depth=depth, seed=seed)
        except Exception as error:  # whatever the user's code raises is the user's to read
            raise ProbeError(
                f"{spec} failed at width {width}, depth {depth}: {type(error).__name__}: {error}",
                hint="it is called as factory(width=..., depth=..., seed=...); --debug shows where",
            ) from error
    if not isinstance(task, Task):
        raise ProbeError(
            f"{spec} returned {type(task).__name__}, not a task", hint="return scalecli.probes.task.Task(...)"
        )
    return task


def content_of(spec: str, task: Task) -> str:
    """SHA-256 of the file that defines the factory, and of the task's fingerprint."""
    source = inspect.getsourcefile(inspect.unwrap(load_factory(spec)))
    if source is None:
        raise ProbeError(f"{spec} has no source file", hint="define the factory in a module")
    digest = hashlib.sha256(Path(source).read_bytes())
    digest.update(task.fingerprint.encode())
    return digest.hexdigest()
