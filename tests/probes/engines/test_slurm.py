"""The Slurm engine on a loopback cluster: one controller, two nodes, real jobs, real kills."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from scalecli.data.store import Store
from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines import slurm
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.engines.local import LocalEngine
from scalecli.probes.engines.slurm import SlurmEngine
from scalecli.probes.engines.slurm_queue import submissions
from scalecli.probes.sweep import SweepProgress, run_sweep

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in (*DAEMONS, "sbatch", "srun") if shutil.which(name) is None]
if os.getuid():
    MISSING.append("root, which starts the daemons")
if find_spec("submitit") is None:
    MISSING.append("submitit")
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm on loopback: {', '.join(MISSING)} missing"),
]

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=2
GresTypes=gpu
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=16821 CPUs=1 Gres=gpu:2
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=16822 CPUs=1 Gres=gpu:2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a cluster of two nodes with one CPU and two pretended GPUs each."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "gres.conf").write_text(
        f"NodeName=n1 Name=gpu File={folder}/gpu[0-1]\nNodeName=n2 Name=gpu File={folder}/gpu[2-3]\n"
    )
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    for number in range(4):
        (folder / f"gpu{number}").touch()  # a device to Slurm, which does not look inside
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    places = [f"--{option}={folder}/munge.{suffix}" for option, suffix in files.items()]
    foreground = [["munged", "--foreground", "--force", f"--key-file={key}", *places]]
    foreground += [["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            for command in foreground:
                silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # each has a log
                started.append(subprocess.Popen(command, **silent))
                time.sleep(0.5)
            _wait_for_nodes()
            yield folder
        finally:
            for daemon in reversed(started):
                daemon.terminate()
            for daemon in started:
                daemon.wait(timeout=30)


def _wait_for_nodes() -> None:
    for _ in range(120):
        said = subprocess.run(["sinfo", "-h", "-o", "%D %t"], capture_output=True, text=True, check=False)
        if said.stdout.split() == ["2", "idle"]:
            return
        time.sleep(0.25)
    raise AssertionError(f"the nodes did not come up: {said}")


@pytest.fixture
def engine(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmEngine:
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 1.0)
    monkeypatch.setattr(slurm, "SHOWN_SECONDS", 6.0)
    return SlurmEngine(device="cpu", options={"time": "10"})


def test_units_train_on_both_nodes(lab: Any, engine: SlurmEngine, store: Store) -> None:
    configs = lab.seeds(4)
    seen: list[SweepProgress] = []
    report = run_sweep(configs, store, engine, on_progress=seen.append)
    assert (report.finished, report.failed) == (4, ())
    assert max(progress.running for progress in seen) >= 2
    lab.check_all_once(configs, store)
    assert run_sweep(configs, store, engine).skipped == 4
    assert not list(store.attempts.glob("slurm/*"))  # jobs that went well leave no files


def test_nodes_are_counted_by_what_a_probe_needs(engine: SlurmEngine) -> None:
    assert engine.capacity() == Capacity("cpu", 2)
    assert SlurmEngine().capacity() == Capacity("cuda", 2)
    for impossible in (SlurmEngine(devices=2), SlurmEngine(options={"partition": "other"})):
        with pytest.raises(ProbeError) as caught:
            impossible.capacity()
        assert caught.value.hint


def test_a_job_on_a_machine_without_the_device_says_so(lab: Any, store: Store, engine: SlurmEngine) -> None:
    report = run_sweep(lab.seeds(1), store, replace(engine, device="cuda"))
    assert ["sees no CUDA device" in failed.reason for failed in report.failed] == [True]


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        ("scalecli.probes.child", "killed by signal 9"),
        ("submitit.core._submit", "left the queue without a result"),
    ],
)
def test_kill_9_of_a_job_loses_only_its_run(
    lab: Any, engine: SlurmEngine, store: Store, victim: str, reason: str
) -> None:
    configs = lab.seeds(3)
    killed: list[int] = []

    def kill_one(progress: SweepProgress) -> None:
        if not killed and progress.running == 2 and (found := jobs(lab, store, victim)):
            killed.append(found[0])
            os.kill(killed[0], signal.SIGKILL)

    report = run_sweep(configs, store, engine, on_progress=kill_one)
    assert killed
    assert report.finished == 2
    assert [reason in failed.reason for failed in report.failed] == [True]
    report = run_sweep(configs, store, engine)
    assert (report.finished, report.skipped) == (1, 2)
    lab.check_all_once(configs, store)


def test_jobs_outlive_a_killed_driver_and_the_next_one_waits_for_them(
    lab: Any, engine: SlurmEngine, tmp_path: Path
) -> None:
    configs, path = lab.seeds(5), tmp_path / "runs.db"
    running = lab.drive(configs, path, engine)
    running.kill()
    running.wait()
    with Store.open(path) as store:
        with pytest.raises(ProbeError, match="still train runs of this store") as caught:
            run_sweep(configs, store, LocalEngine(device="cpu"))
        assert "--engine slurm" in caught.value.hint
        report = run_sweep(configs, store, engine)
        assert report.finished + report.skipped == len(configs)
        lab.check_all_once(configs, store)


def test_a_preempted_job_is_requeued_and_ends(lab: Any, engine: SlurmEngine, store: Store) -> None:
    configs = lab.seeds(2, steps=400)
    preempted: list[str] = []

    def preempt(progress: SweepProgress) -> None:
        if not preempted and progress.fraction > 0:
            (submission,) = submissions(store.attempts)
            preempted.append(submission.name)
            for number in ("TERM", "USR2"):  # what Slurm sends before it takes the node
                subprocess.run(["scancel", f"--name={submission.name}", f"--signal={number}"], check=True)

    report = run_sweep(configs, store, engine, on_progress=preempt)
    assert preempted
    assert (report.finished, report.failed) == (2, ())
    lab.check_all_once(configs, store)


def test_ctrl_c_cancels_the_jobs(lab: Any, engine: SlurmEngine, store: Store) -> None:
    configs = lab.seeds(4)

    def interrupt(progress: SweepProgress) -> None:
        if progress.finished == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(configs, store, engine, on_progress=interrupt)
    assert not submissions(store.attempts)
    lab.wait_for(lambda: not jobs(lab, store, "submitit.core._submit"))
    assert run_sweep(configs, store, engine).skipped >= 1
    lab.check_all_once(configs, store)


def test_jobs_that_would_wait_for_ever_are_an_error(lab: Any, engine: SlurmEngine, store: Store) -> None:
    with pytest.raises(ProbeError, match="PartitionTimeLimit") as caught:
        run_sweep(lab.seeds(1), store, replace(engine, options={"time": "120"}))
    assert "--slurm time=MINUTES" in caught.value.hint
    assert not submissions(store.attempts)


def jobs(lab: Any, store: Store, words: str) -> list[int]:
    """Processes of this store's jobs: the ones that submitit starts, or the probes under them."""
    there = lab.processes()
    ours = {
        each.pid for each in there.values() if "submitit" in each.words and str(store.attempts) in each.words
    }
    return [each.pid for each in there.values() if words in each.words and ({each.pid, each.parent} & ours)]


@pytest.mark.usefixtures("engine")
def test_from_the_command_line(lab: Any, base: ProbeConfig, tmp_path: Path) -> None:
    where = ["--device", "cpu", "--engine", "slurm", "--slurm-partition", "main", "--slurm", "time=10"]
    grid = [*lab.grid, "--data", base.data, *where]
    for words, expected in (
        ([*grid, "--dry-run"], {"runs": 2, "device": "cpu", "slots": 2}),
        (grid, {"finished": 2, "failed": []}),
        (grid, {"skipped": 2}),
        ([*lab.own, *where], {"finished": 2, "failed": []}),
    ):
        assert expected.items() <= lab.sweep(tmp_path, *words).items()
