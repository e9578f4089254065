"""How runs are carried out: taken up again from checkpoints to the last bit, and given up when they are hopeless."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from scalecli.data.corpus import Corpus
from scalecli.errors import DataError, ProbeError
from scalecli.probes.config import Conduct, Evaluation, Optimizer, ProbeConfig
from scalecli.probes.train import StepReport, train_together
from scalecli.probes.train import run as running
from scalecli.probes.train.rivals import Rivals
from scalecli.probes.train.spread import Spread

Rows = list[dict]


class Stopped(Exception):
    """Stands for a kill: nothing catches it."""


def trained(
    configs: list[ProbeConfig], corpus: Corpus, *, stop_at: int | None = None
) -> tuple[Rows, list[int]]:
    """Rows and looked-at steps; with `stop_at` the training ends at the first look from there on."""
    rows: Rows = []
    steps: list[int] = []

    def on_step(report: StepReport) -> None:
        steps.append(report.step)
        if stop_at is not None and len(steps) == stop_at:
            raise Stopped

    try:
        for row in train_together(configs, corpus=corpus, device="cpu", on_step=on_step):
            rows.append(row)
    except Stopped:
        pass
    return rows, steps


def results(rows: Rows) -> dict[int, float]:
    return {row["steps"]: row["loss"] for row in rows if row["kind"] == "result"}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "EVERY_SECONDS", 0.0)


@pytest.mark.usefixtures("eager")
def test_of_several_processes_the_first_writes_checkpoints_and_readings(
    config: ProbeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    checkpoints, readings = tmp_path / "checkpoints", tmp_path / "readings"
    conduct = Conduct(checkpoints=str(checkpoints), stop_above=1.0, readings=str(readings))
    runs = [replace(config, steps=40, conduct=conduct)]
    for rank, writes in ((1, False), (0, True)):
        list(train_together(runs, corpus=corpus, device="cpu", spread=Spread(rank=rank)))
        assert (checkpoints.exists(), readings.exists()) == (writes, writes)
    with pytest.raises(ProbeError, match="in shards"):
        list(train_together(runs, corpus=corpus, device="cpu", spread=Spread(sharding="zero3")))


def test_readings_that_cannot_be_written_are_an_error_with_the_way_out(
    config: ProbeConfig, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="cannot be written") as caught:
        Rivals(tmp_path / "elsewhere" / "readings", 1.0).hopeless(config, 0.5, 3.0)
    assert "nodes share" in caught.value.hint


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("stop_at", "optimizer"), [(3, "adamw"), (6, "muon"), (9, "adamw")])
def test_a_stopped_training_goes_on_to_the_last_bit(
    config: ProbeConfig, corpus: Corpus, tmp_path: Path, stop_at: int, optimizer: str
) -> None:
    """Two lengths that share a trunk, killed on the trunk and in the last tail."""
    evaluation = Evaluation(sequences=32, every=20, averager="ema", amount=10)
    settings = Optimizer(name=optimizer)  # type: ignore[arg-type]
    kept = replace(
        config, conduct=Conduct(checkpoints=str(tmp_path)), evaluation=evaluation, optimizer=settings
    )
    runs = [replace(kept, steps=steps) for steps in (50, 90)]
    whole, _ = trained([replace(run, conduct=Conduct()) for run in runs], corpus)
    before, looked = trained(runs, corpus, stop_at=stop_at)
    left = [run for run in runs if run.steps not in results(before)]
    after, steps = trained(left, corpus)
    assert steps[0] > looked[0]  # it did not begin anew
    assert results(before) | results(after) == results(whole)
    last = [row for row in after if row["kind"] == "step" and row["run_id"] == runs[-1].run_id]
    assert (
        last
        == [row for row in whole if row["kind"] == "step" and row["run_id"] == runs[-1].run_id][-len(last) :]
    )


@pytest.mark.usefixtures("eager")
def test_no_checkpoint_is_written_unless_asked_for(
    config: ProbeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    trained([config], corpus)
    assert not list(tmp_path.iterdir())
    kept = replace(config, conduct=Conduct(checkpoints=str(tmp_path / "here")))
    trained([kept], corpus)
    (file,) = (tmp_path / "here").iterdir()
    other = replace(kept, seed=1)
    assert trained([other], corpus)[1][0] == 16  # another run's checkpoint is not taken for its own
    assert file.exists()


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("harm"),))


@pytest.mark.usefixtures("eager")
def test_a_file_that_is_no_checkpoint_is_not_run(
    config: ProbeConfig, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = replace(config, conduct=Conduct(checkpoints=str(tmp_path / "here")))
    trained([kept], corpus)
    (file,) = (tmp_path / "here").iterdir()
    file.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(DataError, match="no checkpoint"):
        trained([kept], corpus)
    assert not Path("harm").exists()


def contest(config: ProbeConfig, tmp_path: Path, above: float) -> ProbeConfig:
    return replace(config, conduct=Conduct(stop_above=above, readings=str(tmp_path / "rivals.readings")))


def test_a_hopeless_run_is_given_up_with_a_reason(
    config: ProbeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    good = contest(config, tmp_path, 0.5)
    slow = replace(good, learning_rate=1e-5)
    (first,), _ = trained([good], corpus)
    (second,), steps = trained([slow], corpus)
    assert first["status"] == "ok"
    assert (second["status"], second["loss"]) == ("stopped", None)
    assert "above the best of its model and length" in second["status_reason"]
    assert steps[-1] < config.steps
    readings = [json.loads(line) for line in (tmp_path / "rivals.readings").read_text().splitlines()]
    assert [reading["share"] for reading in readings[:3]] == [0.25, 0.5, 0.75]
    (third,), _ = trained([contest(slow, tmp_path, 5.0)], corpus)
    assert third["status"] == "ok"
    (longer,), _ = trained([replace(slow, steps=90)], corpus)
    assert longer["status"] == "ok"  # another length has no rival


def test_a_stack_goes_on_while_one_of_its_runs_is_worth_it(
    config: ProbeConfig, corpus: Corpus, tmp_path: Path
) -> None:
    good = contest(config, tmp_path, 0.5)
    trained([good], corpus)
    slow = [replace(good, learning_rate=rate) for rate in (1e-5, 2e-5)]
    rows, _ = trained([replace(good, seed=1), slow[0]], corpus)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    rows, _ = trained(slow, corpus)
    assert [row["status"] for row in rows] == ["stopped", "stopped"]
