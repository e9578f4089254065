"""Runs of a probe, trained by the resumable sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalecli.cli.progress import sweep_progress

if TYPE_CHECKING:
    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.engines.engine import Engine
    from scalecli.probes.sweep import SweepReport


def train_runs(
    configs: Sequence[ProbeConfig],
    path: Path,
    engine: Engine,
    *,
    timeout: float | None = None,
) -> SweepReport:
    """Train what the store has not finished.

    Raises:
        SweepIncomplete: some runs failed; the others are in the store.
    """
    from scalecli.data.store import Store
    from scalecli.errors import SweepIncomplete
    from scalecli.probes.sweep import run_sweep

    with Store.open(path) as store, sweep_progress() as on_progress:
        report = run_sweep(configs, store, engine, timeout=timeout, on_progress=on_progress)
    if report.failed:
        first = report.failed[0]
        raise SweepIncomplete(
            f"{len(report.failed)} of {report.planned} runs failed, the others are in {path}; "
            f"{first.run_id}: {first.reason}",
            hint=f"scalecli runs list {path}; the same command again tries only the failed ones",
        )
    return report


def stored_runs(configs: Sequence[ProbeConfig], path: Path) -> list[dict[str, Any]]:
    """The rows of these runs, in the order of the store."""
    from scalecli.data.records import records_of
    from scalecli.data.store import Store

    with Store.open(path, write=False) as store:
        frame = store.runs()
    return records_of(frame[frame["run_id"].isin([config.run_id for config in configs])])
