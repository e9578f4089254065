"""Trains at every pair of batch and rate, and measures each update beside the gradient that made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from scalecli.data.corpus import Corpus
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.device import cpu_settings, resolve_device
from scalecli.probes.train.trainer import Trainer

READINGS = 40
HELD_OUT_SEQUENCES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityProbe:
    """Batches in sequences, and peak rates; each pair trains on as many tokens as the base run.

    The held-out loss is read `READINGS` times on a small fixed set: what counts is how it moves, not where it is.
    """

    batches: tuple[int, ...]
    rates: tuple[float, ...]


def pairs(config: ProbeConfig, probe: StabilityProbe) -> list[ProbeConfig]:
    """The trainings, batches and rates rising."""
    reading = replace(config.evaluation, sequences=HELD_OUT_SEQUENCES)
    return [
        replace(
            config,
            evaluation=reading,
            batch_sequences=batch,
            learning_rate=rate,
            steps=max(1, round(config.tokens / (batch * config.sequence_length))),
        )
        for batch in sorted(probe.batches)
        for rate in sorted(probe.rates)
    ]


def run(
    configs: Sequence[ProbeConfig],
    *,
    corpus: Corpus,
    device: str = "auto",
    threads: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> Iterator[Row]:
    """One row a step of each training; a training whose loss is no number ends there."""
    place = resolve_device(device)
    with cpu_settings(threads):
        for index, config in enumerate(configs):
            yield from _steps(Trainer([config], corpus, device=place))
            if on_step:
                on_step(index + 1, len(configs))


def _steps(trainer: Trainer) -> Iterator[Row]:
    config = trainer.config
    every = max(1, config.steps // READINGS)
    flat = trainer.flat
    while trainer.step < config.steps:
        factor = config.schedule.factor(trainer.step, config.steps)
        before = flat.weights.clone()
        flat.zero_gradients()
        loss = float(trainer.backward(trainer.batch(), share=1.0))
        gradient = flat.gradients.clone()
        step = trainer.step
        trainer.update(factor)
        update = before - flat.weights
        measured = _sizes(update[0], gradient[0], config.learning_rate * factor)
        yield {
            "kind": "stability",
            "run_id": config.run_id,
            "step": step,
            "batch_tokens": config.batch_tokens,
            "learning_rate": config.learning_rate,
            "loss": loss if math.isfinite(loss) else None,
            **measured,
            **({"held_out": _held_out(trainer)} if trainer.step % every == 0 else {}),
        }
        if not math.isfinite(loss):
            return


def _held_out(trainer: Trainer) -> float | None:
    (loss,) = trainer.evaluate()
    return loss.mean if math.isfinite(loss.mean) else None


def _sizes(update: torch.Tensor, gradient: torch.Tensor, rate: float) -> Row:
    """Root mean square of the update in rates, its cosine with the gradient, and the gradient's norm."""
    norms = float(update.norm()), float(gradient.norm())
    found = {
        "update_size": norms[0] / math.sqrt(update.numel()) / rate if rate > 0 else math.nan,
        "correlation": float(update @ gradient) / (norms[0] * norms[1]) if all(norms) else math.nan,
        "gradient_norm": norms[1],
    }
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
