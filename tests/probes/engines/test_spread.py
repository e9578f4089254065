"""One probe on several devices: two processes under torchrun, over gloo on a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalecli.data.store import Store
from scalecli.probes.config import Conduct, Evaluation, Optimizer, ProbeConfig
from scalecli.probes.engines.local import LocalEngine
from scalecli.probes.engines.process import Sharding
from scalecli.probes.sweep import SweepProgress, run_sweep

pytestmark = pytest.mark.engines

ONE = LocalEngine(device="cpu", slots=1)
TWO = LocalEngine(device="cpu", slots=1, devices=2)

BALANCE = """
import os
import torch
from scalecli.accounting.shape import ModelShape
from scalecli.probes.decoder import BALANCE_RATE, Experts
from scalecli.probes.train.spread import Spread
spread = Spread.joined("cpu", "ddp")
shape = ModelShape(layers=1, width=8, ffn=8, heads=1, kv_heads=1, vocab=8, num_experts=4, experts_per_token=1)
experts = Experts(shape, 1)
experts.load.copy_(torch.tensor([[[9.0, 5, 1, 1]], [[1.0, 1, 9, 1]]])[spread.rank])
experts.balance()
os.write(1, f"{(experts.bias[0] / BALANCE_RATE).round().int().tolist()}\\n".encode())  # in one piece
torch.distributed.barrier()  # who leaves first takes the other's connection along
os._exit(0)
"""


def assert_as_alone(runs: list[ProbeConfig], store: Store, engine: LocalEngine, *, rel: float) -> None:
    """The losses of the runs are those that one process gets."""
    report = run_sweep(runs, store, engine)
    assert (report.finished, report.failed) == (len(runs), ())
    with Store.open(store.path.with_name("alone.db")) as alone:
        run_sweep(runs, alone, ONE)
        found, expected = (each.runs().set_index("run_id") for each in (store, alone))
    assert set(found["devices"]) == {2}
    for run in runs:
        for column in ("loss", "train_loss"):
            assert found.loc[run.run_id, column] == pytest.approx(expected.loc[run.run_id, column], rel=rel)


@pytest.mark.parametrize("sharding", ["ddp", "zero3"])
def test_two_processes_train_as_one(base: ProbeConfig, store: Store, sharding: Sharding) -> None:
    """Branches of a trunk, in parts of the batch, read as averages of their weights."""
    averaged = Evaluation(sequences=16, averager="ema", amount=5)
    run = replace(base, evaluation=averaged, conduct=Conduct(micro_batch_sequences=8))
    branches = [replace(run, steps=20), replace(run, steps=40)]
    assert_as_alone(branches, store, replace(TWO, sharding=sharding), rel=1e-5)


def test_muon_sees_whole_matrices(base: ProbeConfig, store: Store) -> None:
    """Its products are in bfloat16, which makes more of the last bit than AdamW does."""
    run = replace(base, optimizer=Optimizer(name="muon"), steps=20)
    assert_as_alone([run], store, TWO, rel=2e-3)


def test_experts_are_balanced_over_the_global_batch(tmp_path: Path) -> None:
    script = tmp_path / "balance.py"
    script.write_text(BALANCE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*torchrun, str(script)], capture_output=True, text=True, check=True, timeout=120)
    # Each process alone would have found another expert with too few tokens.
    assert done.stdout.splitlines() == ["[-1, 1, -1, 1]"] * 2


@pytest.mark.parametrize(
    ("change", "sharding", "reason"),
    [
        ({"optimizer": Optimizer(name="muon")}, "zero3", "cannot train in shards"),
        ({"batch_sequences": 41}, "ddp", "cannot be shared out to 2 devices"),
    ],
)
def test_what_cannot_be_spread_says_why(
    base: ProbeConfig, store: Store, change: dict[str, Any], sharding: Sharding, reason: str
) -> None:
    report = run_sweep([replace(base, **change)], store, replace(TWO, sharding=sharding))
    assert [reason in failed.reason for failed in report.failed] == [True]


@pytest.mark.parametrize("torchrun", [True, False])
def test_kill_9_of_one_process_ends_all(lab: Any, store: Store, torchrun: bool) -> None:
    """Of torchrun itself, or of one of the two that it started."""
    there: dict[int, Any] = {}

    def kill(progress: SweepProgress) -> None:
        if not there and progress.fraction > 0:
            every = lab.processes()
            there.update({pid: every[pid] for pid in lab.probes()})
            victims = [
                pid for pid, each in there.items() if ("torch.distributed.run" in each.words) is torchrun
            ]
            os.kill(victims[-1], signal.SIGKILL)

    report = run_sweep([replace(lab.base, steps=2000)], store, TWO, on_progress=kill)
    assert len(there) == 3
    assert len(report.failed) == 1
    lab.wait_for(lambda: not there.keys() & lab.processes().keys())
