"""Many proxy trainings, resumable: what is finished is never trained again.

The driver is the only writer of the store, and the store is the only state: after a crash, a Ctrl-C or a `kill -9` of
the driver or of a probe, the same call goes on where the files say it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import asdict, dataclass

from scalecli.data.store import Store
from scalecli.probes.columns import config_columns
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.engine import Capacity, Engine, UnitEnded, UnitStarted, UnitStep, unfinished
from scalecli.probes.units import Unit, unit_flops

MOST_LOSSES = 3
"""How often a unit is tried again after its place was lost."""


@dataclass(frozen=True, slots=True)
class FailedRun:
    run_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did. `finished` were trained now, `skipped` had been before; `planned` counts every run once."""

    planned: int
    finished: int
    skipped: int
    failed: tuple[FailedRun, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """A sweep on its way. `fraction` is the share of the work [FLOP]; `eta_seconds` is None until some is done."""

    planned: int
    finished: int
    skipped: int
    failed: int
    running: int
    fraction: float
    seconds: float
    eta_seconds: float | None


OnProgress = Callable[[SweepProgress], None]


def run_sweep(
    configs: Iterable[ProbeConfig],
    store: Store,
    engine: Engine,
    *,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> SweepReport:
    """Trains every run that the store has not finished, each unit in a process of its own.

    Args:
        timeout: longest time for one run [s]; a run that takes longer is killed and counts as failed.

    A run that fails is in the report with its reason, and the others go on. The caller turns failures into
    `SweepIncomplete` when it wants to. A run that was given up (`Conduct.stop_above`) counts as finished while that
    rule holds, and is trained once it does not.
    """
    wanted = {config.run_id: config for config in configs}
    capacity = engine.capacity()
    retries = _Retries(capacity)
    with engine.session(store.attempts, timeout=timeout) as session:
        running = list(session.running)
        outlived = {config.run_id for unit in running for config in unit}
        recover(store)
        store.plan({run_id: asdict(config) for run_id, config in wanted.items()})
        settled = ("stopped",) if any(config.conduct.stop_above for config in wanted.values()) else ()
        done = store.finished(*settled)
        todo = {run_id: config for run_id, config in wanted.items() if run_id not in done}
        units = capacity.units(config for run_id, config in todo.items() if run_id not in outlived)
        tally = _Tally(planned=len(wanted), todo=todo.keys(), units=[*running, *units], settled=settled)
        session.submit(units)
        pending = len(running) + len(units)
        while pending:
            event = session.wait()
            if isinstance(event, UnitEnded):
                again = retries.of(event)
                _take_in(event, store, final=not again)
                tally.end(event, store, final=not again)
                session.submit(again)
                pending += len(again) - 1
            else:
                tally.note(event)
            if on_progress:
                on_progress(tally.progress())
    return tally.report(store)


def recover(store: Store) -> None:
    """Takes in what an earlier driver's probes had written when it ended."""
    for file in sorted(store.attempts.glob("*.jsonl")):
        store.ingest(file)


class _Retries:
    """What to try again of a unit that did not come to its end.

    Runs that trained together are tried one by one, so that one bad run cannot take the others with it. A unit whose
    place was lost is tried again as it was, without what it had finished.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._losses: Counter[str] = Counter()

    def of(self, event: UnitEnded) -> list[Unit]:
        left = unfinished(event.unit, event.file) if event.reason else []
        if not left:
            return []
        if event.lost:
            self._losses.update(config.run_id for config in left)
            tired = max(self._losses[config.run_id] for config in left) > MOST_LOSSES
            return [] if tired else self._capacity.units(left)
        return [(config,) for config in left] if len(event.unit) > 1 else []


def _take_in(event: UnitEnded, store: Store, *, final: bool) -> None:
    """Stores the unit's results; runs that died, and are not tried again, leave a row that says how."""
    if event.file.exists():
        store.ingest(event.file)
    if event.reason and final:
        for config in unfinished(event.unit, event.file):
            store.put({**config_columns(config), "status": "failed", "status_reason": event.reason})


class _Tally:
    """Counts for progress and report: of the runs to do, whatever else their units hold."""

    def __init__(
        self, *, planned: int, todo: Set[str], units: Sequence[Unit], settled: Sequence[str]
    ) -> None:
        self._planned = planned
        self._todo = todo
        self._settled = settled
        self._total = sum(unit_flops(unit) for unit in units)
        self._done = 0.0
        self._partial: dict[Unit, float] = {}
        self._finished: set[str] = set()
        self._failed: dict[str, str] = {}
        self._started = time.monotonic()

    def note(self, event: UnitStarted | UnitStep) -> None:
        match event:
            case UnitStarted(unit):
                self._partial[unit] = 0.0
            case UnitStep(unit, _, step, _):
                self._partial[unit] = unit_flops(unit) * min(1.0, step / max(config.steps for config in unit))

    def end(self, event: UnitEnded, store: Store, *, final: bool) -> None:
        """The unit has ended; its runs that are not finished failed, unless they are tried again."""
        self._partial.pop(event.unit, None)
        finished = store.finished(*self._settled)
        for run_id in self._todo & {config.run_id for config in event.unit}:
            if run_id in finished:
                self._finished.add(run_id)
                self._failed.pop(run_id, None)
            elif final:
                self._failed[run_id] = event.reason
        if final:
            self._done += unit_flops(event.unit)

    def progress(self) -> SweepProgress:
        seconds = time.monotonic() - self._started
        fraction = min(1.0, (self._done + sum(self._partial.values())) / self._total) if self._total else 1.0
        return SweepProgress(
            planned=self._planned,
            finished=len(self._finished),
            skipped=self._planned - len(self._todo),
            failed=len(self._failed),
            running=len(self._partial),
            fraction=fraction,
            seconds=seconds,
            eta_seconds=seconds * (1 - fraction) / fraction if fraction else None,
        )

    def report(self, store: Store) -> SweepReport:
        reasons = _stored_reasons(store, set(self._failed))
        failed = tuple(
            FailedRun(run_id, reasons.get(run_id) or reason) for run_id, reason in self._failed.items()
        )
        return SweepReport(
            planned=self._planned,
            finished=len(self._finished),
            skipped=self._planned - len(self._todo),
            failed=failed,
            seconds=time.monotonic() - self._started,
        )


def _stored_reasons(store: Store, run_ids: set[str]) -> dict[str, str]:
    """Why runs have a status other than ok, as their rows say."""
    if not run_ids:
        return {}
    rows = store.runs()
    rows = rows[rows["run_id"].isin(run_ids)]
    return {
        str(run_id): f"{status}: {reason}"
        for run_id, status, reason in zip(rows["run_id"], rows["status"], rows["status_reason"], strict=True)
    }
