"""How a sweep on its way is shown: a bar on a terminal, one line a finished run otherwise; on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scalecli.cli.render import warn
from scalecli.units import format_seconds

if TYPE_CHECKING:
    from scalecli.probes.sweep import OnProgress, SweepProgress


@contextmanager
def sweep_progress() -> Iterator[OnProgress]:
    """A callback for `run_sweep` that draws while the block runs."""
    if sys.stderr.isatty():
        with _bar() as update:
            yield update
    else:
        yield _Lines().update


@contextmanager
def _bar() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=1.0, counts="")

        def update(progress: SweepProgress) -> None:
            bar.update(task, completed=progress.fraction, counts=_counts(progress))

        yield update


class _Lines:
    """One line whenever a run ends."""

    def __init__(self) -> None:
        self._ended = 0

    def update(self, progress: SweepProgress) -> None:
        ended = progress.finished + progress.failed
        if ended == 0:
            self._ended = 0
        if ended > self._ended:
            self._ended = ended
            warn(_counts(progress))


def _counts(progress: SweepProgress) -> str:
    parts = [f"{progress.skipped + progress.finished} of {progress.planned} runs"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.eta_seconds is not None:
        parts.append(f"about {format_seconds(progress.eta_seconds)} left")
    return ", ".join(parts)


@contextmanager
def step_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, of how many) that draws while the block runs: a bar, or a line at every tenth."""
    if sys.stderr.isatty():
        with _step_bar(what) as update:
            yield update
    else:
        yield _tenths(what)


@contextmanager
def _step_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tenths(what: str) -> Callable[[int, int], None]:
    said = 0

    def update(done: int, total: int) -> None:
        nonlocal said
        if 10 * done // total > said:
            said = 10 * done // total
            warn(f"{what}: {done} of {total}")

    return update
