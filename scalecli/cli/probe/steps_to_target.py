"""`probe critical-batch`: whole trainings over batches and rates, and the steps at which each reaches a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalecli.cli.probe.dry_run import finished_runs
from scalecli.cli.probe.training import train_runs

if TYPE_CHECKING:
    from scalecli.data.corpus import Corpus
    from scalecli.data.tables import RunTable
    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.critical_batch.steps_to_target import Curve
    from scalecli.probes.spec import SweepSpec

BATCH_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""The default batches, as multiples of the batch by rule."""


@dataclass(frozen=True, slots=True)
class StepsProbe:
    """Trainings on the same tokens at several batches and rates; without `targets`, the lowest loss that all reach."""

    configs: list[ProbeConfig]
    targets: tuple[float, ...]
    interval: float
    seed: int

    @classmethod
    def of(
        cls,
        spec: SweepSpec,
        corpus: Corpus,
        *,
        params: float,
        tokens: float,
        batches: Sequence[float],
        rates: Sequence[float],
        seed: int,
        seeds: int,
        targets: tuple[float, ...],
        interval: float,
    ) -> StepsProbe:
        from scalecli.probes.critical_batch.steps_to_target import design
        from scalecli.probes.family import shape_of_size
        from scalecli.probes.ladder import default_batch_tokens

        shape = shape_of_size(spec.recipe.family(corpus), params)
        middle = default_batch_tokens(tokens)
        configs = design(
            corpus, spec.data, shape, tokens=tokens, seeds=seeds, recipe=spec.recipe,
            batch_tokens=batches or [factor * middle for factor in BATCH_FACTORS], learning_rates=rates or None,
        )  # fmt: skip
        seeded = [replace(config, seed=config.seed + seed) for config in configs]
        return cls(seeded, targets, interval, seed)

    def slots(self, wanted: int | None) -> int | None:
        """As many at a time as the user wants."""
        return wanted

    def finished(self, store: Path) -> set[str]:
        """What the store has of these runs."""
        return finished_runs(store)

    def measure(self, store: Path, device: str, slots: int | None, timeout: float | None) -> dict[str, Any]:
        """Raises NotEnoughSignal when fewer than three batches reach a target."""
        from scalecli.fitters.critical.report import critical_batches
        from scalecli.probes.critical_batch import steps_to_target
        from scalecli.probes.engines.local import LocalEngine

        train_runs(self.configs, store, LocalEngine(device=device, slots=slots), timeout=timeout)
        curves = _curves(self.configs, store)
        rows = []
        for target in self.targets or (steps_to_target.reachable_target(curves),):
            steps_to_target.rows(curves, target)
            rows += list(_crossings(curves, target))
        found = critical_batches(_table(rows, store), interval=self.interval, seed=self.seed)
        return {
            "method": "steps to a target",
            "interval": self.interval,
            "critical": [
                {"at": f"loss {target['loss']:.4f}", **figure}
                for target in found["targets"]
                for figure in target["critical"]
            ],
            "unidentified": [target for target in found["targets"] if target["reason"] is not None],
            "targets": found["targets"],
            "rows": rows,
            "warnings": found["warnings"],
        }


def _curves(configs: Sequence[ProbeConfig], path: Path) -> list[Curve]:
    """The readings of these runs; a run that diverged has those before."""
    from scalecli.data.store import Store
    from scalecli.probes.critical_batch.steps_to_target import curves_of

    readings = {}
    with Store.open(path, write=False) as store:
        for config in configs:
            frame = store.steps(config.run_id)
            if len(frame):
                finite = frame[frame["loss"].notna()]
                readings[config.run_id] = list(
                    zip(finite["step"].tolist(), finite["loss"].tolist(), strict=True)
                )
    return curves_of(configs, readings)


def _crossings(curves: Sequence[Curve], target: float) -> Iterator[dict[str, Any]]:
    """One row for each run of the settings all of whose seeds reach the target."""
    from scalecli.probes.critical_batch.steps_to_target import crossing

    steps = {curve.config.run_id: crossing(curve, target) for curve in curves}
    missed = {
        (curve.config.batch_tokens, curve.config.learning_rate)
        for curve in curves
        if steps[curve.config.run_id] is None
    }
    for curve in curves:
        config, reached = curve.config, steps[curve.config.run_id]
        if reached is not None and (config.batch_tokens, config.learning_rate) not in missed:
            yield {
                "loss": target,
                "batch_tokens": config.batch_tokens,
                "steps": reached,
                "tokens": reached * config.batch_tokens,
                "learning_rate": config.learning_rate,
                "seed": config.seed,
                "params": config.shape.params,
                "optimizer": config.optimizer.name,
                "schedule": config.schedule.name,
            }


def _table(rows: list[dict[str, Any]], store: Path) -> RunTable:
    """The rows as a run table whose source is the store."""
    import numpy as np
    import pandas as pd

    from scalecli.data.tables import RunTable

    return RunTable(pd.DataFrame(rows), np.arange(len(rows)), len(rows), (), str(store), "")
