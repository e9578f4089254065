"""Measures what the verdict needs: sizes on one fixed batch, before and along a few training steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.device import cpu_settings, resolve_device
from scalecli.probes.train.trainer import Trainer


def widened(config: ProbeConfig, width: int) -> ProbeConfig:
    """The same network at another width: depth, head dimension and feed-forward ratio stay.

    Raises:
        ProbeError: the width is no multiple of the head dimension.
    """
    shape = config.shape
    if width % shape.head_dim:
        raise ProbeError(
            f"width {width} is no multiple of the head dimension {shape.head_dim}", hint="use multiples of it"
        )
    heads = width // shape.head_dim
    grouped = max(1, heads * shape.kv_heads // shape.heads)
    ffn = round(shape.ffn * width / shape.width)
    return replace(config, shape=replace(shape, width=width, heads=heads, kv_heads=grouped, ffn=ffn))


def run(
    config: ProbeConfig,
    widths: Sequence[int],
    *,
    corpus: Corpus,
    steps: int = 10,
    seeds: int = 4,
    device: str = "auto",
    threads: int = 1,
) -> Iterator[Row]:
    """Trains `config` at every width for a few steps at its full rate, `seeds` copies side by side.

    Yields one row a width, step and module: the root mean square of what the module puts out, and of the
    change of that since the start.
    """
    place = resolve_device(device)
    with cpu_settings(threads):
        for width in widths:
            wide = widened(config, width)
            copies = [replace(wide, seed=wide.seed + seed) for seed in range(seeds)]
            trainer = Trainer(copies, corpus, device=place)
            # Past the steps that are trained on, and the same for every width.
            trainer.step = steps
            batch = trainer.batch()
            trainer.step = 0
            start = _outputs(trainer, batch)
            while trainer.step < steps:
                trainer.advance(1.0)
            yield from _rows(trainer, start, _outputs(trainer, batch))


def _rows(trainer: Trainer, start: dict[str, Tensor], now: dict[str, Tensor]) -> Iterator[Row]:
    for name, output in now.items():
        sizes = {"activation": _size(output), "update": _size(output - start[name])}
        yield {
            "kind": "coordinates",
            "run_id": trainer.config.run_id,
            "parametrization": trainer.config.parametrization,
            "width": trainer.config.shape.width,
            "step": trainer.step,
            "name": name,
            **{part: size if math.isfinite(size) else None for part, size in sizes.items()},
        }


def _size(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


@torch.no_grad()
def _outputs(trainer: Trainer, batch: Tensor) -> dict[str, Tensor]:
    """What attention and feed-forward blocks and the whole model put out."""
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(
            lambda _module, _inputs, output: found.update({name: output.clone()})
        )

    watched = {
        name: module
        for name, module in trainer.model.named_modules()
        if name.endswith(("attention", "feed_forward"))
    }
    hooks = [keep(name, module) for name, module in {**watched, "logits": trainer.model}.items()]
    trainer.model(batch[..., :-1])
    for hook in hooks:
        hook.remove()
    return found
