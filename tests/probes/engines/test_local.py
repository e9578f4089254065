"""Sweeps with real processes: killed, stopped, hung, damaged, and run again."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalecli.data.store import Store
from scalecli.errors import DataError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines import process
from scalecli.probes.engines.local import LocalEngine
from scalecli.probes.sweep import OnProgress, SweepProgress, SweepReport, run_sweep

ONE, TWO = (LocalEngine(device="cpu", slots=slots) for slots in (1, 2))


def signal_probe(lab: Any, which: signal.Signals) -> tuple[list[int], OnProgress]:
    """A progress callback that sends one signal to the first probe that has begun to train."""
    sent: list[int] = []

    def on_progress(progress: SweepProgress) -> None:
        if not sent and progress.fraction > 0:
            (pid,) = lab.probes()
            os.kill(pid, which)
            sent.append(pid)

    return sent, on_progress


def test_a_sweep_repeats_nothing_and_takes_more_points(lab: Any, base: ProbeConfig, store: Store) -> None:
    first = lab.seeds(2)
    seen: list[SweepProgress] = []
    report = run_sweep(first, store, TWO, on_progress=seen.append)
    assert (report.planned, report.finished, report.skipped, report.failed) == (2, 2, 0, ())
    assert seen[-1].fraction == 1.0
    assert all(0 <= progress.fraction <= 1 for progress in seen)
    assert any(progress.eta_seconds for progress in seen)
    again = run_sweep(first, store, ONE)
    assert (again.finished, again.skipped) == (0, 2)
    more = [*first, replace(base, seed=7), replace(base, steps=50)]
    report = run_sweep(more, store, ONE)
    assert (report.planned, report.finished, report.skipped) == (4, 2, 2)
    lab.check_all_once(more, store)


def test_kill_9_of_a_probe_loses_only_its_run(lab: Any, store: Store) -> None:
    configs = lab.seeds(3)
    killed, on_progress = signal_probe(lab, signal.SIGKILL)
    report = run_sweep(configs, store, ONE, on_progress=on_progress)
    assert killed
    assert report.finished == 2
    (failed,) = report.failed
    assert "killed by signal 9" in failed.reason
    report = run_sweep(configs, store, ONE)
    assert (report.finished, report.skipped, report.failed) == (1, 2, ())
    lab.check_all_once(configs, store)


def test_kill_9_of_a_probe_of_several_runs_loses_none(lab: Any, store: Store) -> None:
    stacked = lab.seeds(3, batch_sequences=8, steps=300)
    killed, on_progress = signal_probe(lab, signal.SIGKILL)
    report = run_sweep(stacked, store, ONE, on_progress=on_progress)
    assert killed
    assert (report.finished, report.failed) == (3, ())
    lab.check_all_once(stacked, store)


def test_a_hung_probe_is_killed_and_the_others_go_on(
    lab: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SILENCE_SECONDS", 15.0)
    configs = lab.seeds(2)
    stopped, on_progress = signal_probe(lab, signal.SIGSTOP)
    report = run_sweep(configs, store, ONE, on_progress=on_progress)
    assert stopped
    assert report.finished == 1
    assert [failed.reason for failed in report.failed] == ["failed: hangs: killed"]
    assert not lab.probes()


def test_a_run_that_takes_too_long_is_killed(base: ProbeConfig, store: Store) -> None:
    slow = replace(base, steps=100_000)
    report = run_sweep([slow], store, ONE, timeout=1.0)
    assert [failed.reason for failed in report.failed] == ["failed: took longer than 1 s: killed"]


def test_kill_9_of_the_driver(lab: Any, tmp_path: Path) -> None:
    configs, path = lab.seeds(4), tmp_path / "runs.db"
    driver = lab.drive(configs, path, ONE)
    orphans = lab.probes(driver.pid)
    driver.kill()
    driver.wait()
    lab.wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    with Store.open(path) as store:
        before = lab.results(store.attempts)
        assert 1 <= len(before) < len(configs)
        report = run_sweep(configs, store, ONE)
        assert (report.finished, report.skipped) == (len(configs) - len(before), len(before))
        lab.check_all_once(configs, store)


def test_ctrl_c_keeps_what_is_finished(lab: Any, store: Store) -> None:
    configs = lab.seeds(3)

    def interrupt(progress: SweepProgress) -> None:
        if progress.finished == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(configs, store, ONE, on_progress=interrupt)
    assert not lab.probes()
    assert run_sweep(configs, store, ONE).skipped == 1
    lab.check_all_once(configs, store)


def test_a_line_cut_short_is_an_unfinished_run(lab: Any, store: Store) -> None:
    whole, cut = lab.seeds(2)
    line = json.dumps({"kind": "result", "run_id": whole.run_id, "status": "ok", "loss": 2.0})
    other = line.replace(whole.run_id, cut.run_id)
    (store.attempts / "died.jsonl").write_text(line + "\n" + other[: len(other) // 2])
    report = run_sweep([whole, cut], store, ONE)
    assert (report.finished, report.skipped) == (1, 1)
    lab.check_all_once([whole, cut], store)


def test_a_probe_that_cannot_run_says_why(base: ProbeConfig, store: Store) -> None:
    report: SweepReport = run_sweep([replace(base, data_sha256="f" * 64)], store, ONE)
    (failed,) = report.failed
    assert "SHA-256" in failed.reason


def test_a_second_driver_is_refused(base: ProbeConfig, store: Store) -> None:
    with pytest.raises(DataError, match="in use"):
        Store.open(store.path)
