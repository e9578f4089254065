"""Measures squared gradient norms along a training, from the micro-batches that the training is cut into
anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.curvature.products import HessianProducts, flat
from scalecli.probes.device import cpu_settings, resolve_device
from scalecli.probes.noise.estimate import SquaredNorms
from scalecli.probes.train.optimizers import adam_divisors
from scalecli.probes.train.trainer import Trainer

MICRO_BATCHES = 8
"""As good as single examples for each example spent (docs/benchmarks.md), in far fewer backward passes."""
WHOLE_MODEL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseProbe:
    """What is measured: every `every` steps from step `start` on, whole or by layer too, as it is or as Adam
    sees it.

    With `preconditioned` gradients are divided by the root of Adam's second moments first: the noise scale of
    the direction in which Adam moves. With `hessian` norms are also measured in the Hessian of the next batch, whose
    noise is another's: B_noise = tr(H Sigma) / G'HG (McCandlish et al. 2018, equation 2.8), at one more gradient of
    the gradient for each micro-batch.
    """

    start: int = 0
    every: int = 1
    micro_batches: int = MICRO_BATCHES
    by_layer: bool = False
    preconditioned: bool = False
    hessian: bool = False


def run(
    config: ProbeConfig,
    probe: NoiseProbe,
    *,
    corpus: Corpus,
    device: str = "auto",
    threads: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> Iterator[Row]:
    """Trains as `config` says and yields one row a measured step, or one a layer; `norms_of` reads them.

    Raises:
        ProbeError: the batch cannot be cut into that many micro-batches, or there is no Adam to precondition
        with.
    """
    _check(config, probe)
    with cpu_settings(threads):
        trainer = Trainer([config], corpus, device=resolve_device(device))
        while trainer.step < config.steps:
            step, factor = trainer.step, config.schedule.factor(trainer.step, config.steps)
            if step >= probe.start and (step - probe.start) % probe.every == 0:
                yield from _measured_step(trainer, probe, factor)
            else:
                trainer.advance(factor)
            if on_step:
                on_step(trainer.step, config.steps)


def norms_of(rows: list[Row], layer: str = WHOLE_MODEL, *, hessian: bool = False) -> list[SquaredNorms]:
    """The rows of one layer, for `noise_scale`; in the Hessian's measure where that was taken too."""
    small, big = ("hessian_small", "hessian_big") if hessian else ("small", "big")
    return [
        SquaredNorms(
            small=float(row[small] or 0.0),
            big=float(row[big] or 0.0),
            small_examples=int(row["small_examples"] or 0),
            big_examples=int(row["big_examples"] or 0),
        )
        for row in rows
        if row["layer"] == layer
    ]


def _check(config: ProbeConfig, probe: NoiseProbe) -> None:
    if probe.micro_batches < 2 or config.batch_sequences % probe.micro_batches:
        raise ProbeError(
            f"a batch of {config.batch_sequences} sequences cannot be cut into {probe.micro_batches} micro-batches",
            hint=f"use a batch that is a multiple of {max(2, probe.micro_batches)} sequences",
        )
    if probe.preconditioned and (config.optimizer.name != "adamw" or probe.start < 1):
        raise ProbeError(
            "preconditioned norms need Adam's second moments",
            hint="use adamw, and start after the first step",
        )


def _measured_step(trainer: Trainer, probe: NoiseProbe, factor: float) -> Iterator[Row]:
    """One training step whose gradient is added up from micro-batches, with their norms."""
    batch = trainer.batch()
    buffer = trainer.flat.gradients
    norms = _Norms(trainer, probe)
    total = torch.zeros_like(buffer)
    loss = 0.0
    for part in trainer.subject.parts(batch, probe.micro_batches):
        buffer.zero_()
        loss += float(trainer.backward(part, share=1.0)) / probe.micro_batches
        norms.add()
        total.add_(buffer, alpha=1 / probe.micro_batches)
    buffer.copy_(total)
    small, big = norms.means(), norms.now()
    step = trainer.step
    trainer.update(factor)
    yield from _rows(trainer, probe, step, loss, small, big)


class _Norms:
    """Squared norms of the present gradient: of each parameter, and last, where it is measured, in the Hessian."""

    def __init__(self, trainer: Trainer, probe: NoiseProbe) -> None:
        self._trainer = trainer
        self._divisors = (
            adam_divisors(trainer.flat, trainer.optimizers, trainer.config.optimizer)
            if probe.preconditioned
            else None
        )
        self._hessian = None
        if probe.hessian:
            unseen = trainer.subject.batch(trainer.step + 1)
            parts = trainer.subject.parts(unseen, probe.micro_batches)
            self._hessian = HessianProducts(trainer, parts)
        self._sums: list[float] = []
        self._count = 0

    def add(self) -> None:
        now = self.now()
        self._sums = [sum(pair) for pair in zip(self._sums or [0.0] * len(now), now, strict=True)]
        self._count += 1

    def means(self) -> list[float]:
        return [each / self._count for each in self._sums]

    def now(self) -> list[float]:
        """In float64: differences of these are small."""
        weights = self._trainer.flat
        grads = weights.by_parameter(weights.gradients)
        if self._divisors is not None:
            grads = [grad / divisor for grad, divisor in zip(grads, self._divisors, strict=True)]
        norms = torch.stack([grad.double().square().sum() for grad in grads]).tolist()
        if self._hessian is not None:
            update = flat(grads).double()
            norms.append(float(update @ self._hessian.times(update)))
        return list(norms)


def _rows(
    trainer: Trainer, probe: NoiseProbe, step: int, loss: float, small: list[float], big: list[float]
) -> Iterator[Row]:
    config = trainer.config
    common: Row = {
        "kind": "noise",
        "run_id": config.run_id,
        "step": step,
        "tokens": step * config.batch_tokens,
        "loss": loss,
        "small_examples": config.batch_sequences // probe.micro_batches,
        "big_examples": config.batch_sequences,
        "preconditioned": int(probe.preconditioned),
    }
    curved: Row = {"hessian_small": small.pop(), "hessian_big": big.pop()} if probe.hessian else {}
    yield {**common, "layer": WHOLE_MODEL, "small": sum(small), "big": sum(big), **curved}
    if probe.by_layer:
        for (name, _), each_small, each_big in zip(trainer.model.named_parameters(), small, big, strict=True):
            yield {**common, "layer": name, "small": each_small, "big": each_big}
