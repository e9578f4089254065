"""The Ray engine on two nodes of a loopback cluster: real raylets, real kills."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from scalecli.data.store import Store
from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.corpora import corpus_of
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.engines.local import LocalEngine
from scalecli.probes.engines.ray import RayEngine
from scalecli.probes.sweep import SweepProgress, run_sweep

# Ray reads its authentication mode when it is imported, so that is left to the engine.
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        find_spec("ray") is None, reason="Ray is not installed: `make test-engines` does that"
    ),
]

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
"""127.0.0.1 would be replaced by the machine's own address."""
PORT = 6399


@dataclass(frozen=True)
class Cluster:
    """A head and another node, one CPU each, both on loopback and closed by a token."""

    folder: Path
    lab: Any

    def start(self) -> None:
        self._start(
            "--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={self.folder}", ip=HEAD
        )
        self.start_other()

    def start_other(self) -> None:
        self._start(f"--address={HEAD}:{PORT}", ip=OTHER)

    def kill(self) -> None:
        for pid in self._ours(""):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def raylets(self, ip: str = "") -> list[int]:
        """The raylets of a node, or of both."""
        return self._ours(f"--node_ip_address={ip}")

    def probes(self) -> list[int]:
        """Processes that train on the nodes."""
        return [pid for raylet in self.raylets() for pid in self.lab.probes(raylet)]

    def _start(self, *where: str, ip: str) -> None:
        size = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000", "--disable-usage-stats"]
        ray = Path(sys.executable).with_name("ray")
        subprocess.run(
            [ray, "start", *where, f"--node-ip-address={ip}", *size],
            check=True,
            capture_output=True,
            timeout=120,
        )

    def _ours(self, words: str) -> list[int]:
        return [
            each.pid
            for each in self.lab.processes().values()
            if str(self.folder) in each.words and words in each.words
        ]


@pytest.fixture(scope="module")
def cluster(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("ray"), lab)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        made.start()
        try:
            yield made
        finally:
            made.kill()


@pytest.fixture
def engine(cluster: Cluster) -> RayEngine:
    return RayEngine(address=f"{HEAD}:{PORT}", device="cpu")


def test_units_train_on_all_nodes_and_their_records_come_back(
    lab: Any, engine: RayEngine, store: Store, base: ProbeConfig, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(Path(base.data).read_bytes())
    configs = [replace(base, data=str(text), seed=seed) for seed in range(4)]
    corpus_of(configs[0])
    text.unlink()  # nodes are sent the corpus: they need not share a disk
    seen: list[SweepProgress] = []
    assert engine.capacity() == Capacity("cpu", 2)
    report = run_sweep(configs, store, engine, on_progress=seen.append)
    assert (report.finished, report.failed) == (4, ())
    assert max(progress.running for progress in seen) == 2
    lab.check_all_once(configs, store)
    assert run_sweep(configs, store, engine).skipped == 4


def test_kill_9_of_a_raylet_loses_no_run_and_repeats_none(
    cluster: Cluster, lab: Any, engine: RayEngine, store: Store
) -> None:
    configs = lab.seeds(6)
    killed: list[int] = []

    def kill_a_node(progress: SweepProgress) -> None:
        if not killed and progress.finished and progress.running == 2:
            killed.extend(cluster.raylets(OTHER))
            os.kill(killed[0], signal.SIGKILL)

    report = run_sweep(configs, store, engine, on_progress=kill_a_node)
    assert killed
    assert (report.finished, report.failed) == (len(configs), ())
    lab.check_all_once(configs, store)
    cluster.start_other()


def test_a_run_of_a_killed_child_fails_alone(
    cluster: Cluster, lab: Any, engine: RayEngine, store: Store
) -> None:
    killed: list[int] = []

    def kill_a_child(progress: SweepProgress) -> None:
        if not killed and progress.running == 2 and progress.fraction > 0:
            killed.append(cluster.probes()[-1])
            os.kill(killed[0], signal.SIGKILL)

    report = run_sweep(lab.seeds(3), store, engine, on_progress=kill_a_child)
    assert report.finished == 2
    assert ["killed by signal 9" in failed.reason for failed in report.failed] == [True]


def test_kill_9_of_the_driver_ends_its_tasks_and_keeps_what_they_finished(
    cluster: Cluster, lab: Any, engine: RayEngine, tmp_path: Path
) -> None:
    configs, path = lab.seeds(5), tmp_path / "runs.db"
    running = lab.drive(configs, path, engine)
    running.kill()
    running.wait()
    lab.wait_for(lambda: not cluster.probes())
    with Store.open(path) as store:
        before = lab.results(store.attempts)
        assert 1 <= len(before) < len(configs)
        report = run_sweep(configs, store, LocalEngine(device="cpu", slots=2))
        assert (report.finished, report.skipped) == (len(configs) - len(before), len(before))
        lab.check_all_once(configs, store)


def test_a_cluster_that_lets_us_in_by_no_token_is_refused_at_once(cluster: Cluster, tmp_path: Path) -> None:
    words = ["probe", "sweep", "--params", "20k", "--dry-run", "--engine", "ray", f"--address={HEAD}:{PORT}"]
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-m", "scalecli", *words],
        env={**without, "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == ProbeError.exit_code
    assert "RAY_AUTH_MODE=token" in done.stderr
    assert "ray get-auth-token --generate" in done.stderr


def test_from_the_command_line(cluster: Cluster, lab: Any, base: ProbeConfig, tmp_path: Path) -> None:
    where = ["--engine", "ray", f"--address={HEAD}:{PORT}"]
    grid = [*lab.grid, "--data", base.data, *where]
    for words, expected in (
        ([*grid, "--dry-run"], {"runs": 2, "slots": 2}),
        (grid, {"finished": 2, "failed": []}),
        ([*lab.own, *where], {"finished": 2, "failed": []}),
    ):
        assert expected.items() <= lab.sweep(tmp_path, *words).items()


def test_an_address_where_nothing_answers_is_an_error_with_the_next_command(engine: RayEngine) -> None:
    for address in ("127.0.0.9:6390", "ray://127.0.0.2:10001", "nonsense"):
        with pytest.raises(ProbeError) as caught:
            RayEngine(address=address).capacity()
        assert caught.value.hint


def test_death_of_the_cluster_keeps_what_is_finished(
    cluster: Cluster, lab: Any, engine: RayEngine, store: Store
) -> None:
    configs = lab.seeds(4)

    def kill_all(progress: SweepProgress) -> None:
        if progress.finished and progress.running:
            cluster.kill()

    with pytest.raises(ProbeError, match="is gone") as caught:
        run_sweep(configs, store, engine, on_progress=kill_all)
    assert "--engine local" in caught.value.hint
    report = run_sweep(configs, store, LocalEngine(device="cpu", slots=2))
    assert report.skipped >= 1
    lab.check_all_once(configs, store)
