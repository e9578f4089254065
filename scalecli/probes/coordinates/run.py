"""Measures what the verdict needs: sizes on one fixed batch, before and along a few training steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import Corpus
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.device import cpu_settings, resolve_device
from scalecli.probes.subjects.subject import Batch
from scalecli.probes.train.trainer import Trainer


def run(
    configs: Sequence[ProbeConfig],
    *,
    corpus: Corpus,
    steps: int = 10,
    seeds: int = 4,
    device: str = "auto",
    threads: int = 1,
) -> Iterator[Row]:
    """Trains configurations that differ in width for a few steps at their full rate, each with `seeds` seeds.

    Yields one row a width, step and module: the root mean square of what the module puts out, and of the
    change of that since the start, over all seeds.
    """
    place = resolve_device(device)
    with cpu_settings(threads):
        for config in configs:
            copies = [replace(config, seed=config.seed + seed) for seed in range(seeds)]
            together = [copies] if isinstance(config.shape, ModelShape) else [[copy] for copy in copies]
            trained = [_trained(stack, corpus, place, steps) for stack in together]
            yield from _rows(config, steps, trained)


Squares = dict[str, tuple[float, float]]
"""Mean squares of each module's output and of its change."""


def _trained(configs: Sequence[ProbeConfig], corpus: Corpus, device: torch.device, steps: int) -> Squares:
    trainer = Trainer(configs, corpus, device=device)
    # Past the steps that are trained on, and the same for every width.
    trainer.step = steps
    batch = trainer.batch()
    trainer.step = 0
    start = _outputs(trainer, batch)
    while trainer.step < steps:
        trainer.advance(1.0)
    now = _outputs(trainer, batch)
    return {name: (_square(output), _square(output - start[name])) for name, output in now.items()}


def _rows(config: ProbeConfig, steps: int, trained: Sequence[Squares]) -> Iterator[Row]:
    for name in trained[0]:
        sizes = [math.sqrt(fmean(each[name][part] for each in trained)) for part in (0, 1)]
        activation, update = (size if math.isfinite(size) else None for size in sizes)
        yield {
            "kind": "coordinates",
            "run_id": config.run_id,
            "parametrization": config.parametrization,
            "width": config.shape.width,
            "step": steps,
            "name": name,
            "activation": activation,
            "update": update,
        }


def _square(values: Tensor) -> float:
    return float(values.square().mean())


@torch.no_grad()
def _outputs(trainer: Trainer, batch: Batch) -> dict[str, Tensor]:
    """What the watched modules put out."""
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if (tensor := _tensor(output)) is not None:
                found[name] = tensor.float().clone()

        return module.register_forward_hook(note)

    hooks = [keep(name, module) for name, module in trainer.subject.watched().items()]
    trainer.losses(batch)
    for hook in hooks:
        hook.remove()
    return found


def _tensor(output: Any) -> Tensor | None:
    """The tensor a module puts out, or the first of several; logits where they have that name."""
    output = getattr(output, "logits", output)
    if isinstance(output, list | tuple) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.is_floating_point() else None
