"""Measures what the verdicts need: sizes and ranges on one fixed batch, before and after a few training steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.coordinates.formats import FORMATS, cast, rounding, scale_exponent
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

    Yields one row a width and module: the root mean square of what the module puts out, and of the change of that
    since the start, over all seeds. Rows of kind `range` say of the first seed's tensors what number formats lose.

    Raises:
        ProbeError: a tensor is not finite.
    """
    place = resolve_device(device)
    with cpu_settings(threads):
        for config in configs:
            copies = [replace(config, seed=config.seed + seed) for seed in range(seeds)]
            together = [copies] if isinstance(config.shape, ModelShape) else [[copy] for copy in copies]
            trained = [_trained(stack, corpus, place, steps) for stack in together]
            yield from _rows(config, steps, [each.squares for each in trained])
            about: Row = {"kind": "range", "run_id": config.run_id, "width": config.shape.width}
            yield from ({**about, **row} for row in trained[0].ranges)


Squares = dict[str, tuple[float, float]]
"""Mean squares of each module's output and of its change."""


@dataclass(frozen=True, slots=True)
class _Trained:
    squares: Squares
    ranges: list[Row]


@dataclass(frozen=True, slots=True)
class _Passed:
    """What the watched modules put out on a batch, and the gradients of its mean loss by that."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]


def _trained(configs: Sequence[ProbeConfig], corpus: Corpus, device: torch.device, steps: int) -> _Trained:
    trainer = Trainer(configs, corpus, device=device)
    # Past the steps that are trained on, and the same for every width.
    trainer.step = steps
    batch = trainer.batch()
    trainer.step = 0
    start = _passed(trainer, batch)
    ranges = list(_ranges(trainer, start))
    while trainer.step < steps:
        trainer.advance(1.0)
    now = _passed(trainer, batch)
    ranges += _ranges(trainer, now)
    squares = {
        name: (_square(output), _square(output - start.outputs[name])) for name, output in now.outputs.items()
    }
    return _Trained(squares, ranges)


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


def _passed(trainer: Trainer, batch: Batch) -> _Passed:
    """A forward and a backward pass; gradients of weights are left where the trainer keeps them."""
    found: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if (tensor := _tensor(output)) is not None:
                found[name], outputs[name] = tensor, tensor.detach().float().clone()
                if tensor.requires_grad:
                    tensor.retain_grad()

        return module.register_forward_hook(note)

    hooks = [keep(name, module) for name, module in trainer.subject.watched().items()]
    trainer.flat.zero_gradients()
    trainer.backward(batch, share=1.0)
    for hook in hooks:
        hook.remove()
    gradients = {
        name: tensor.grad
        for name, tensor in found.items()
        if tensor.requires_grad and tensor.grad is not None
    }
    return _Passed(outputs, gradients)


def _ranges(trainer: Trainer, passed: _Passed) -> Iterator[Row]:
    """What every format loses of the first copy's matrices, outputs and gradients; of zeros it loses nothing."""
    for part, name, inside, values in _tensors(trainer, passed):
        largest = float(values.abs().max())
        if not math.isfinite(largest):
            raise ProbeError(
                f"the {part} of {name} is not finite after {trainer.step} steps",
                hint="use a smaller learning rate",
            )
        for kind in FORMATS if largest else ():
            plain, exponent = cast(values, kind), scale_exponent(largest, kind)
            scaled = cast(values.double() * 2.0**exponent, kind)
            yield {
                "step": trainer.step,
                "part": part,
                "name": name,
                "inside": int(inside),
                "format": kind,
                "largest": largest,
                "below": plain.below,
                "above": plain.above,
                "error": plain.error,
                "scale_exponent": exponent,
                "scaled_below": scaled.below,
                "scaled_error": scaled.error,
                "rounding": rounding(kind),
            }


def _tensors(trainer: Trainer, passed: _Passed) -> Iterator[tuple[str, str, bool, Tensor]]:
    """Part, name, whether it is inside the layers, and values."""
    outside = {"logits", "output"}
    for weight in trainer.subject.weights(0):
        inside = weight.role in ("hidden", "kernel")
        if weight.role in ("embedding", "head"):
            outside.add(weight.name.rpartition(".")[0])
        if weight.role != "vector":
            yield "weight", weight.name, inside, weight.value
            yield "weight gradient", weight.name, inside, weight.grad
    for part, tensors in (("activation", passed.outputs), ("gradient", passed.gradients)):
        for name, tensor in tensors.items():
            yield part, name, name not in outside, tensor[0] if trainer.subject.copies > 1 else tensor


def _tensor(output: Any) -> Tensor | None:
    """The tensor a module puts out, or the first of several; logits where they have that name."""
    output = getattr(output, "logits", output)
    if isinstance(output, list | tuple) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.is_floating_point() else None
