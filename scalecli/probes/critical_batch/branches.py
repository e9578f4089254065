"""The local critical batch size: branches with larger batches from one point of a training.

Each branch multiplies the batch by k and the rate by the root of k, or by k for SGD and LARS (Malladi et al. 2022,
2205.10287), and trains on the same tokens. The critical batch is the largest whose loss is still within a
tolerance of the smallest's (Merrill et al. 2025, 2505.23971, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from scalecli.data.corpus import Corpus
from scalecli.errors import NotEnoughSignal, ProbeError
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig

TOLERANCE = 0.01
"""Nats a token; the tolerance of the source."""


LINEAR = ("sgd", "lars")
"""Optimizers whose step is proportional to the gradient: their rate goes with the batch, not with its root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchProbe:
    """Branches at step `start` of the base run, each on `tokens` tokens, with `factors` times its batch."""

    start: int
    tokens: float
    factors: tuple[int, ...] = (1, 2, 4, 8, 16)

    def branch(self, config: ProbeConfig, factor: int) -> ProbeConfig:
        """The run with `factor` times the batch: its steps are those of the branch alone."""
        power = 1.0 if config.optimizer.name in LINEAR else 0.5
        return replace(
            config,
            batch_sequences=config.batch_sequences * factor,
            learning_rate=config.learning_rate * factor**power,
            steps=max(1, round(self.tokens / (config.batch_tokens * factor))),
        )


@dataclass(frozen=True, slots=True)
class LocalCriticalBatch:
    """Tokens a step; `tested` are the two batches between which the tolerance is crossed."""

    tokens: float
    tested: tuple[int, int]
    tolerance: float


def run(
    config: ProbeConfig, probe: BranchProbe, *, corpus: Corpus, device: str = "auto", threads: int = 1
) -> Iterator[Row]:
    """Trains the base run to the branching point, then every branch; yields one row a branch.

    Raises:
        ProbeError: the branching point lies beyond the run, or the factors do not begin with 1 and rise.
    """
    from scalecli.probes.device import cpu_settings, resolve_device
    from scalecli.probes.train.trainer import Trainer

    if not 0 < probe.start <= config.steps:
        raise ProbeError(
            f"step {probe.start} is no step of a run of {config.steps}", hint="give --branch-at within it"
        )
    if probe.factors[:1] != (1,) or list(probe.factors) != sorted(set(probe.factors)):
        raise ProbeError(f"factors {probe.factors} do not rise from 1", hint="use 1,2,4,8")
    place = resolve_device(device)
    with cpu_settings(threads):
        trunk = Trainer([config], corpus, device=place)
        while trunk.step < probe.start:
            trunk.advance(config.schedule.factor(trunk.step, config.steps))
        point = trunk.state()
        for factor in probe.factors:
            branch = probe.branch(config, factor)
            trainer = Trainer([branch], corpus, device=place)
            trainer.restore(point)
            # On from the same place in the text, counted in batches of its own size.
            trainer.step = -(-probe.start // factor)
            for _ in range(branch.steps):
                trainer.advance(1.0)
            (loss,) = trainer.evaluate()
            yield {
                "kind": "critical-batch",
                "run_id": config.run_id,
                "step": probe.start,
                "factor": factor,
                "batch_tokens": branch.batch_tokens,
                "learning_rate": branch.learning_rate,
                "tokens": branch.tokens,
                "loss": loss.mean if math.isfinite(loss.mean) else None,
                "loss_std": loss.std_error if math.isfinite(loss.std_error) else None,
            }


def local_critical_batch(branches: Sequence[Row], *, tolerance: float = TOLERANCE) -> LocalCriticalBatch:
    """Where the loss leaves the tolerance, linear in the logarithm of the batch between two branches.

    Raises:
        NotEnoughSignal: no branch leaves it; the estimate is the largest batch, a lower limit.
    """
    ordered = sorted(branches, key=lambda row: float(row["batch_tokens"] or 0))
    batches = [int(row["batch_tokens"] or 0) for row in ordered]
    base = _loss(ordered[0])
    excess = [_loss(row) - base for row in ordered]
    left = next((index for index, each in enumerate(excess) if each > tolerance), None)
    if left is None:
        raise NotEnoughSignal(
            f"no batch up to {batches[-1]} tokens costs more than {tolerance:g} nats: the critical batch is larger",
            estimate=float(batches[-1]),
            hint="add larger factors",
        )
    share = (tolerance - excess[left - 1]) / (excess[left] - excess[left - 1])
    low, high = math.log(batches[left - 1]), math.log(batches[left])
    return LocalCriticalBatch(
        math.exp(low + share * (high - low)), (batches[left - 1], batches[left]), tolerance
    )


def _loss(row: Row) -> float:
    """A branch that diverged has no loss: it is infinitely far off."""
    return math.inf if row["loss"] is None else float(row["loss"])
