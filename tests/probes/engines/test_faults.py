"""Disks that fill up and memory that runs out: injected by the kernel, not by us."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalecli.data.store import Store
from scalecli.errors import DataError
from scalecli.probes.config import Evaluation, ProbeConfig
from scalecli.probes.engines.local import LocalEngine
from scalecli.probes.engines.process import Slot
from scalecli.probes.sweep import SweepProgress, run_sweep

ONE = LocalEngine(device="cpu", slots=1)


Limited = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Limited:
    """Children that start meanwhile have less of something than the driver."""
    command = Slot.command

    @contextmanager
    def limit(how: str) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(
                Slot, "command", lambda slot: ["bash", "-c", f'{how}; exec "$@"', "-", *command(slot)]
            )
            yield

    return limit


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_the_sweep_and_loses_nothing_stored(lab: Any, small_disk: Path) -> None:
    configs, ballast = lab.seeds(3), small_disk / "ballast"

    def fill(progress: SweepProgress) -> None:
        if progress.finished == 1 and not ballast.exists():
            subprocess.run(["dd", "if=/dev/zero", f"of={ballast}"], capture_output=True, check=False)

    with Store.open(small_disk / "runs.db") as store:
        with pytest.raises(DataError, match=r"No space left|disk is full") as caught:
            run_sweep(configs, store, ONE, on_progress=fill)
        assert caught.value.hint == "free some space, and run the same command again"
        ballast.unlink()
        assert len(store.finished()) == 1
        report = run_sweep(configs, store, ONE)
        assert (report.skipped, report.failed) == (1, ())
        lab.check_all_once(configs, store)


def test_records_that_cannot_be_written_end_the_sweep_with_the_systems_word(
    lab: Any, store: Store, base: ProbeConfig, limited: Limited
) -> None:
    talkative = replace(base, evaluation=Evaluation(sequences=16, every=1))
    with limited("ulimit -f 4"), pytest.raises(DataError, match="File too large") as caught:  # 4 KiB
        run_sweep([talkative], store, ONE)
    assert caught.value.hint == "free some space, and run the same command again"
    report = run_sweep([talkative], store, ONE)
    assert (report.finished, report.failed) == (1, ())
    lab.check_all_once([talkative], store)


def test_memory_that_runs_out_in_a_probe_is_the_status_of_its_run(
    store: Store, base: ProbeConfig, limited: Limited
) -> None:
    large = replace(base, batch_sequences=60_000, steps=1)
    with limited("ulimit -v 4500000"):  # 4.3 GiB of addresses, of which torch itself takes more than half
        report = run_sweep([large, base], store, ONE)
    assert report.finished == 1
    assert [failed.reason.partition(":")[0] for failed in report.failed] == ["out_of_memory"]
    assert set(store.runs()["status"]) == {"ok", "out_of_memory"}
