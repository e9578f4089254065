"""Many proxy trainings, resumable: what is finished is never trained again.

The driver is the only writer of the store, and the store is the only state: after a crash, a Ctrl-C or a `kill -9` of
the driver or of a probe, the same call goes on where the files say it stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from scalecli.data.store import Store
from scalecli.probes.columns import config_columns
from scalecli.probes.config import ProbeConfig
from scalecli.probes.executor import Event, Slot, UnitEnded, UnitStarted, UnitStep, run_units
from scalecli.probes.units import Unit, plan_units, unit_flops


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
    *,
    device: str = "auto",
    slots: int | None = None,
    threads: int = 1,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> SweepReport:
    """Trains every run that the store has not finished, several at a time, each slot in a process of its own.

    Args:
        slots: how many at a time; by default one a CPU thread, or one a GPU.
        timeout: longest time for one run [s]; a run that takes longer is killed and counts as failed.

    A run that fails is in the report with its reason, and the others go on. The caller turns failures into
    `SweepIncomplete` when it wants to. A run that was given up (`Conduct.stop_above`) counts as finished while that
    rule holds, and is trained once it does not.
    """
    places = local_slots(device, slots, threads)
    wanted = {config.run_id: config for config in configs}
    recover(store)
    store.plan({run_id: asdict(config) for run_id, config in wanted.items()})
    settled = ("stopped",) if any(config.conduct.stop_above for config in wanted.values()) else ()
    done = store.finished(*settled)
    todo = [config for run_id, config in wanted.items() if run_id not in done]
    units = plan_units(todo, device_type=places[0].device)
    state = _Tally(planned=len(wanted), skipped=len(wanted) - len(todo), units=units, settled=settled)
    for event in run_units(units, places, store.attempts, timeout=timeout):
        if isinstance(event, UnitEnded):
            _take_in(event, store)
        state.note(event, store)
        if on_progress:
            on_progress(state.progress())
    return state.report(store, todo)


def recover(store: Store) -> None:
    """Takes in what an earlier driver's probes had written when it ended."""
    for file in sorted(store.attempts.glob("*.jsonl")):
        store.ingest(file)


def local_slots(device: str, slots: int | None, threads: int) -> list[Slot]:
    """The slots of this machine: CPU threads shared out, or GPUs in turn.

    Raises:
        ProbeError: the device does not exist.
    """
    if device == "cpu":
        count = slots or max(1, len(os.sched_getaffinity(0)) // threads)
        return [Slot(device="cpu", threads=threads)] * count
    import torch

    from scalecli.probes.device import resolve_device

    place = resolve_device(device)
    if place.type == "cpu":
        return local_slots("cpu", slots, threads)
    # Numbers count within what this process may see; children must be told the names it was given.
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    gpus = [names[place.index]] if place.index is not None else names
    return [
        Slot(device="cuda", threads=threads, visible_device=gpus[slot % len(gpus)])
        for slot in range(slots or len(gpus))
    ]


def _take_in(event: UnitEnded, store: Store) -> None:
    """Stores the unit's results; a run that died alone leaves a row that says how."""
    if event.file.exists():
        store.ingest(event.file)
    if event.reason and len(event.unit) == 1 and event.unit[0].run_id not in store.finished():
        store.put({**config_columns(event.unit[0]), "status": "failed", "status_reason": event.reason})


class _Tally:
    """Counts for progress and report."""

    def __init__(self, *, planned: int, skipped: int, units: Sequence[Unit], settled: Sequence[str]) -> None:
        self._planned = planned
        self._settled = settled
        self._skipped = skipped
        self._total = sum(unit_flops(unit) for unit in units)
        self._done = 0.0
        self._partial: dict[Unit, float] = {}
        self._finished: set[str] = set()
        self._failed: dict[str, str] = {}
        self._started = time.monotonic()

    def note(self, event: Event, store: Store) -> None:
        match event:
            case UnitStarted(unit):
                self._partial[unit] = 0.0
            case UnitStep(unit, _, step, _):
                self._partial[unit] = unit_flops(unit) * min(1.0, step / max(config.steps for config in unit))
            case UnitEnded(unit, _, reason):
                self._partial.pop(unit, None)
                self._end(unit, reason, store)

    def _end(self, unit: Unit, reason: str, store: Store) -> None:
        finished = store.finished(*self._settled)
        retried = bool(reason) and len(unit) > 1
        for config in unit:
            if config.run_id in finished:
                self._finished.add(config.run_id)
                self._failed.pop(config.run_id, None)
            elif not retried:
                self._failed[config.run_id] = reason
        if not retried:
            self._done += unit_flops(unit)

    def progress(self) -> SweepProgress:
        seconds = time.monotonic() - self._started
        fraction = min(1.0, (self._done + sum(self._partial.values())) / self._total) if self._total else 1.0
        return SweepProgress(
            planned=self._planned,
            finished=len(self._finished),
            skipped=self._skipped,
            failed=len(self._failed),
            running=len(self._partial),
            fraction=fraction,
            seconds=seconds,
            eta_seconds=seconds * (1 - fraction) / fraction if fraction else None,
        )

    def report(self, store: Store, todo: Sequence[ProbeConfig]) -> SweepReport:
        reasons = _stored_reasons(store, set(self._failed))
        failed = tuple(
            FailedRun(run_id, reasons.get(run_id) or reason) for run_id, reason in self._failed.items()
        )
        return SweepReport(
            planned=self._planned,
            finished=len(self._finished),
            skipped=self._skipped,
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
