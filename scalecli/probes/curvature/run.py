"""Measures the extreme eigenvalues of batch Hessians at one point of a training, by the Lanczos iteration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.curvature.estimate import Extremes, check_optimizer, extremes
from scalecli.probes.curvature.products import HessianProducts
from scalecli.probes.device import cpu_settings, resolve_device
from scalecli.probes.subjects import subject_of
from scalecli.probes.train.optimizers import adam_divisors
from scalecli.probes.train.trainer import Trainer

ITERATIONS = 20
PIECE_TOKENS = 8_192
"""Tokens differentiated at once: the graph of a gradient holds several times what a forward pass does."""
EXHAUSTED = 1e-10
"""A residual below this share of the largest product: the vectors span all that the matrix reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvatureProbe:
    """At step `start` of the training, `repeats` batches of each size in `batches` (sequences), apart from its own."""

    start: int
    batches: tuple[int, ...]
    repeats: int = 3
    iterations: int = ITERATIONS


def run(
    config: ProbeConfig,
    probe: CurvatureProbe,
    *,
    corpus: Corpus,
    device: str = "auto",
    threads: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> Iterator[Row]:
    """Trains to the point, then yields one row a batch; Adam's Hessian is preconditioned as its updates are.

    Raises:
        ProbeError: the point is no step of the run, or the optimizer is neither AdamW nor SGD.
    """
    if not 0 < probe.start <= config.steps:
        raise ProbeError(
            f"step {probe.start} is no step of a run of {config.steps}", hint="give --at within it"
        )
    check_optimizer(config.optimizer.name)
    place = resolve_device(device)
    total = probe.start + len(probe.batches) * probe.repeats
    with cpu_settings(threads):
        trainer = Trainer([config], corpus, device=place)
        while trainer.step < probe.start:
            trainer.advance(config.schedule.factor(trainer.step, config.steps))
            if on_step:
                on_step(trainer.step, total)
        adam = config.optimizer.name == "adamw"
        divisors = adam_divisors(trainer.flat, trainer.optimizers, config.optimizer) if adam else None
        for index, sequences in enumerate(probe.batches):
            unseen = subject_of([replace(config, batch_sequences=sequences)], corpus, place)
            first = math.ceil(probe.start * config.batch_sequences / sequences)
            pieces = _pieces(sequences, config.sequence_length)
            for repeat in range(probe.repeats):
                parts = unseen.parts(unseen.batch(first + repeat), pieces)
                products = HessianProducts(trainer, parts, divisors=divisors)
                yield _row(config, probe, sequences, repeat, lanczos(products, probe.iterations, repeat))
                if on_step:
                    on_step(probe.start + index * probe.repeats + repeat + 1, total)


def _pieces(sequences: int, sequence_length: int) -> int:
    """The fewest equal pieces of a batch that have at most PIECE_TOKENS each, or one sequence."""
    most = max(1, PIECE_TOKENS // sequence_length)
    return next(
        count for count in range(1, sequences + 1) if sequences % count == 0 and sequences / count <= most
    )


def lanczos(products: HessianProducts, iterations: int, seed: int) -> Extremes:
    """Extremes of the matrix, with all vectors kept orthogonal (float64: few of them, and rounding breeds ghosts)."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(products.size, generator=generator, dtype=torch.float64)
    vector /= vector.norm()
    basis: list[Tensor] = []
    alphas: list[float] = []
    betas: list[float] = []
    largest = 0.0
    for _ in range(min(iterations, products.size)):
        basis.append(vector)
        residual = products.times(vector)
        alphas.append(float(residual @ vector))
        largest = max(largest, float(residual.norm()))
        known = torch.stack(basis)
        for _ in range(2):  # twice is enough (Parlett)
            residual = residual - known.T @ (known @ residual)
        betas.append(float(residual.norm()))
        if betas[-1] <= EXHAUSTED * largest:
            betas[-1] = 0.0
            break
        vector = residual / betas[-1]
    return extremes(alphas, betas)


def _row(config: ProbeConfig, probe: CurvatureProbe, sequences: int, repeat: int, found: Extremes) -> Row:
    return {
        "kind": "curvature",
        "run_id": config.run_id,
        "step": probe.start,
        "batch_tokens": sequences * config.sequence_length,
        "repeat": repeat,
        "preconditioned": int(config.optimizer.name == "adamw"),
        "curvature_low": found.low,
        "curvature_high": found.high,
        "error": found.error,
    }
