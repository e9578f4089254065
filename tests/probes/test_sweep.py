"""Sweeps with real processes: killed, stopped, hung, damaged, and run again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import load_corpus
from scalecli.data.store import Store
from scalecli.errors import DataError
from scalecli.probes import executor
from scalecli.probes.config import Evaluation, ProbeConfig
from scalecli.probes.sweep import SweepProgress, SweepReport, run_sweep

DRIVER = """
import sys
from pathlib import Path
from scalecli.data.store import Store
from scalecli.probes.config import ProbeConfig
from scalecli.probes.sweep import run_sweep
configs = [ProbeConfig.from_json(line) for line in Path(sys.argv[1]).read_text().splitlines()]
with Store.open(sys.argv[2]) as store:
    run_sweep(configs, store, device="cpu", slots=1)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ProbeConfig:
    """A run of about a second on text of our own; its batch is too large for stacking."""
    text = tmp_path_factory.mktemp("corpus") / "text.txt"
    text.write_text("".join(f"{i} times {j} is {i * j}.\n" for i in range(120) for j in range(100)))
    corpus = load_corpus(str(text))
    return ProbeConfig(
        shape=ModelShape(layers=1, width=16, ffn=32, heads=1, kv_heads=1, vocab=corpus.vocab),
        data=str(text),
        data_sha256=corpus.sha256,
        sequence_length=32,
        batch_sequences=40,
        steps=100,
        learning_rate=1e-2,
        evaluation=Evaluation(sequences=16),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "runs.db") as store:
        yield store


def seeds(base: ProbeConfig, count: int) -> list[ProbeConfig]:
    return [replace(base, seed=seed) for seed in range(count)]


def results(folder: Path) -> Counter[str]:
    """How often each run was trained to its end, over all attempts there have been."""
    found: Counter[str] = Counter()
    for file in folder.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                if record["kind"] == "result" and record["status"] == "ok":
                    found[record["run_id"]] += 1
    return found


def children(parent: int) -> list[int]:
    """Ids of the probes' processes that this process has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                ours = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent
                if ours and b"scalecli.probes.child" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def signal_probe(which: signal.Signals) -> tuple[list[int], object]:
    """A progress callback that sends one signal to the first probe that has begun to train."""
    sent: list[int] = []

    def on_progress(progress: SweepProgress) -> None:
        if not sent and progress.fraction > 0:
            (pid,) = children(os.getpid())
            os.kill(pid, which)
            sent.append(pid)

    return sent, on_progress


def check_all_once(configs: list[ProbeConfig], store: Store) -> None:
    wanted = sorted(config.run_id for config in configs)
    runs = store.runs()
    assert sorted(runs["run_id"]) == wanted
    assert set(runs["status"]) == {"ok"}
    assert results(store.attempts) == Counter(wanted)


def test_a_sweep_repeats_nothing_and_takes_more_points(base: ProbeConfig, store: Store) -> None:
    first = seeds(base, 2)
    seen: list[SweepProgress] = []
    report = run_sweep(first, store, device="cpu", slots=2, on_progress=seen.append)
    assert (report.planned, report.finished, report.skipped, report.failed) == (2, 2, 0, ())
    assert seen[-1].fraction == 1.0
    assert all(0 <= progress.fraction <= 1 for progress in seen)
    assert any(progress.eta_seconds for progress in seen)
    again = run_sweep(first, store, device="cpu", slots=1)
    assert (again.finished, again.skipped) == (0, 2)
    more = [*first, replace(base, seed=7), replace(base, steps=50)]
    report = run_sweep(more, store, device="cpu", slots=1)
    assert (report.planned, report.finished, report.skipped) == (4, 2, 2)
    check_all_once(more, store)


def test_kill_9_of_a_probe_loses_only_its_run(base: ProbeConfig, store: Store) -> None:
    configs = seeds(base, 3)
    killed, on_progress = signal_probe(signal.SIGKILL)
    report = run_sweep(configs, store, device="cpu", slots=1, on_progress=on_progress)  # type: ignore[arg-type]
    assert killed
    assert report.finished == 2
    (failed,) = report.failed
    assert "killed by signal 9" in failed.reason
    report = run_sweep(configs, store, device="cpu", slots=1)
    assert (report.finished, report.skipped, report.failed) == (1, 2, ())
    check_all_once(configs, store)


def test_kill_9_of_a_probe_of_several_runs_loses_none(base: ProbeConfig, store: Store) -> None:
    stacked = seeds(replace(base, batch_sequences=8, steps=300), 3)
    killed, on_progress = signal_probe(signal.SIGKILL)
    report = run_sweep(stacked, store, device="cpu", slots=1, on_progress=on_progress)  # type: ignore[arg-type]
    assert killed
    assert (report.finished, report.failed) == (3, ())
    check_all_once(stacked, store)


def test_a_hung_probe_is_killed_and_the_others_go_on(
    base: ProbeConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "SILENCE_SECONDS", 15.0)
    configs = seeds(base, 2)
    stopped, on_progress = signal_probe(signal.SIGSTOP)
    report = run_sweep(configs, store, device="cpu", slots=1, on_progress=on_progress)  # type: ignore[arg-type]
    assert stopped
    assert report.finished == 1
    assert [failed.reason for failed in report.failed] == ["failed: hangs: killed"]
    assert not children(os.getpid())


def test_a_run_that_takes_too_long_is_killed(base: ProbeConfig, store: Store) -> None:
    slow = replace(base, steps=100_000)
    report = run_sweep([slow], store, device="cpu", slots=1, timeout=1.0)
    assert [failed.reason for failed in report.failed] == ["failed: took longer than 1 s: killed"]


def test_kill_9_of_the_driver(base: ProbeConfig, tmp_path: Path) -> None:
    configs = seeds(base, 4)
    plan, path = tmp_path / "configs.jsonl", tmp_path / "runs.db"
    plan.write_text("\n".join(config.to_json() for config in configs))
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(plan), str(path)])
    attempts = path.with_name("runs.db.attempts")
    wait_for(lambda: attempts.exists() and len(results(attempts)) >= 1)
    orphans = children(driver.pid)
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    before = results(attempts)
    assert 1 <= len(before) < len(configs)
    with Store.open(path) as store:
        report = run_sweep(configs, store, device="cpu", slots=1)
        assert (report.finished, report.skipped) == (len(configs) - len(before), len(before))
        check_all_once(configs, store)


def test_ctrl_c_keeps_what_is_finished(base: ProbeConfig, store: Store) -> None:
    configs = seeds(base, 3)

    def interrupt(progress: SweepProgress) -> None:
        if progress.finished == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(configs, store, device="cpu", slots=1, on_progress=interrupt)
    assert not children(os.getpid())
    assert run_sweep(configs, store, device="cpu", slots=1).skipped == 1
    check_all_once(configs, store)


def test_a_line_cut_short_is_an_unfinished_run(base: ProbeConfig, store: Store) -> None:
    whole, cut = seeds(base, 2)
    line = json.dumps({"kind": "result", "run_id": whole.run_id, "status": "ok", "loss": 2.0})
    other = line.replace(whole.run_id, cut.run_id)
    (store.attempts / "died.jsonl").write_text(line + "\n" + other[: len(other) // 2])
    report = run_sweep([whole, cut], store, device="cpu", slots=1)
    assert (report.finished, report.skipped) == (1, 1)
    check_all_once([whole, cut], store)


def test_a_probe_that_cannot_run_says_why(base: ProbeConfig, store: Store) -> None:
    report: SweepReport = run_sweep([replace(base, data_sha256="f" * 64)], store, device="cpu", slots=1)
    (failed,) = report.failed
    assert "SHA-256" in failed.reason


def test_a_second_driver_is_refused(base: ProbeConfig, store: Store) -> None:
    with pytest.raises(DataError, match="in use"):
        Store.open(store.path)


def wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)
