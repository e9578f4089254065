"""The engine as options and TOML files say it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines import share
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.engines.local import LocalEngine
from scalecli.probes.engines.ray import RayEngine
from scalecli.probes.engines.settings import EngineSettings
from scalecli.probes.engines.slurm import SlurmEngine
from scalecli.probes.spec import sweep_spec, with_settings

FILE = """
params = ["20k"]
[engine]
name = "slurm"
slots = 8
devices_per_probe = 2
[engine.slurm]
partition = "gpu"
time = 90
"""


def test_a_file_names_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(FILE)
    engine = sweep_spec(path).engine.engine([])
    assert engine == SlurmEngine(slots=8, devices=2, options={"partition": "gpu", "time": "90"})
    changed = with_settings(sweep_spec(path), ["engine.slurm.account=me", "engine.probes_per_device=1"])
    assert changed.engine.slurm == {"partition": "gpu", "time": 90, "account": "me"}
    path.write_text('[engine]\nname = "ray"\naddress = "head:6379"\nprobes_per_device = 4\n')
    assert sweep_spec(path).engine.engine([]) == RayEngine(address="head:6379", share=4)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "dask"},
        {"address": "head:6379"},
        {"slurm": {"time": 90}},
        {"devices_per_probe": 0},
        {"probes_per_device": "many"},
        {"devices_per_probe": 2, "probes_per_device": "2"},
    ],
)
def test_what_no_engine_can_do_is_an_error_with_a_way_out(settings: dict[str, object]) -> None:
    with pytest.raises(ProbeError) as caught:
        EngineSettings(**settings)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_missing_extra_is_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ProbeError) as caught:
        RayEngine().capacity()
    assert caught.value.hint == "pip install 'scalecli[ray]'"


def test_slots_are_the_threads_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert LocalEngine(device="cpu").capacity() == Capacity("cpu", 8)
    assert LocalEngine(device="cpu", threads=2, devices=2).capacity() == Capacity("cpu", 2, 2)
    assert LocalEngine(device="cpu", slots=3).capacity() == Capacity("cpu", 3)


def test_gpus_are_shared_out_by_the_names_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")

    def seen(**settings: Any) -> list[str | None]:
        return [slot.visible_devices for slot in LocalEngine(device="cuda", **settings).places()]

    assert seen() == ["3", "5", "7"]
    assert seen(share=2) == ["3", "5", "7", "3", "5", "7"]
    assert seen(devices=2) == ["3,5"]
    assert seen(slots=4) == ["3", "5", "7", "3"]
    with pytest.raises(ProbeError) as caught:
        seen(devices=4)
    assert caught.value.hint == "--devices-per-probe 3"
    assert RayEngine(share=4)._needs("cuda") == {"CPU": 1, "GPU": 0.25}


def test_the_time_of_a_job_is_that_of_its_longest_unit(base: ProbeConfig) -> None:
    units = [(base,), (base, replace(base, seed=1))]
    assert SlurmEngine().minutes(units, timeout=600.0) == 5 + 20
    assert SlurmEngine(options={"time": "7"}).minutes(units, timeout=600.0) == 7
    with pytest.raises(ProbeError, match="not a number of minutes"):
        SlurmEngine(options={"time": "1:00:00"}).minutes(units, timeout=None)


def test_probes_on_a_device_are_tried_in_processes_of_their_own(
    base: ProbeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "MOST", 2)
    monkeypatch.setattr(share, "TRIAL_SECONDS", 0.3)
    seen: list[share.Trial] = []
    best = share.best_share
    monkeypatch.setattr(
        share, "best_share", lambda trials: best(seen.append(each) or each for each in trials)
    )
    assert share.measured_share(
        [(base, replace(base, seed=1)), (replace(base, batch_sequences=80),)], "cpu"
    ) in (1, 2)
    assert [trial.processes for trial in seen] == [1, 2]
    assert all(trial.steps_per_second > 0 and trial.free_bytes > share.RESERVE_BYTES for trial in seen)


def test_a_trial_that_does_not_fit_ends_the_search(
    base: ProbeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert share.best_share(iter([])) == 1
    trials = [share.Trial(1, 10.0, 2**33), share.Trial(2, 18.0, 2**33), share.Trial(4, 30.0, 2**20)]
    assert share.best_share(iter(trials)) == 2
