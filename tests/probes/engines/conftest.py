"""What the tests of every engine share: a run of about a second, a store, and a laboratory of real processes."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import load_corpus
from scalecli.data.store import Store
from scalecli.probes.config import Evaluation, ProbeConfig
from scalecli.probes.engines.engine import Engine

OWN_TASKS = Path(__file__).parents[3] / "examples" / "own_tasks.py"
GRID = ("--params", "15k", "--tokens-per-param", "1", "--batch-tokens", "512", "--learning-rate", "1e-3,1e-2")
OWN = (
    *("--model", "own_tasks:curve", "--params", "2k", "--tokens-per-param", "4", "--batch-tokens", "32"),
    *("--learning-rate", "1e-3,3e-3", "--micro-batch", "16", "--stop-above", "5", "--checkpoint", "saved"),
)
"""A model of one's own in parts of the batch, by a rule to give up, with checkpoints."""
DRIVER = """
import pickle, sys
from scalecli.data.store import Store
from scalecli.probes.sweep import run_sweep
configs, path, engine = pickle.load(sys.stdin.buffer)
with Store.open(path) as store:
    run_sweep(configs, store, engine)
"""


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def lab(base: ProbeConfig) -> Iterator[Lab]:
    made = Lab(base)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Lab:
    """Runs, drivers that can be killed, processes that can be found, and what must hold afterwards."""

    base: ProbeConfig
    grid: tuple[str, ...] = GRID
    own: tuple[str, ...] = OWN
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def seeds(self, count: int, **changes: object) -> list[ProbeConfig]:
        return [replace(self.base, seed=seed, **changes) for seed in range(count)]

    def results(self, folder: Path) -> Counter[str]:
        """How often each run was trained to its end, over all attempts there have been in a folder."""
        found: Counter[str] = Counter()
        for file in folder.glob("*.jsonl"):
            for line in file.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    record = json.loads(line)
                    if record["kind"] == "result" and record["status"] == "ok":
                        found[record["run_id"]] += 1
        return found

    def check_all_once(self, configs: list[ProbeConfig], store: Store) -> None:
        """Every run is in the store, and was trained to its end once."""
        wanted = sorted(config.run_id for config in configs)
        runs = store.runs()
        assert sorted(runs["run_id"]) == wanted
        assert set(runs["status"]) == {"ok"}
        assert self.results(store.attempts) == Counter(wanted)

    def drive(self, configs: list[ProbeConfig], path: Path, engine: Engine) -> subprocess.Popen[bytes]:
        """A sweep in a process of its own, once it has finished a run."""
        process = subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE)
        self.started.append(process)
        assert process.stdin is not None
        with process.stdin as stream:
            stream.write(pickle.dumps((configs, path, engine)))
        attempts = path.with_name(path.name + ".attempts")
        self.wait_for(lambda: attempts.exists() and self.results(attempts))
        return process

    def sweep(self, folder: Path, *words: str) -> dict[str, Any]:
        """What `probe sweep` says in a folder that has the example of models of one's own."""
        shutil.copy(OWN_TASKS, folder)
        command = [sys.executable, "-m", "scalecli", "probe", "sweep", *words, "--store", "runs.db", "--json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=300)
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def processes(self) -> dict[int, Process]:
        """All processes of this machine, by id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(folder.name)] = Process(int(folder.name), parent, words)
        return found

    def probes(self, ancestor: int | None = None) -> list[int]:
        """Processes that train below a process, by default this one: others may train on the machine too."""
        there, top = self.processes(), ancestor or os.getpid()

        def ancestors(process: Process) -> Iterator[int]:
            while parent := there.get(process.parent):
                yield parent.pid
                process = parent

        return [
            each.pid
            for each in there.values()
            if "-m scalecli.probes.child" in each.words and top in ancestors(each)
        ]

    def wait_for(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "nothing happened in time"
            time.sleep(0.02)


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    words: str
