"""Averages over past weights: each against its definition, and in a training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.config import Evaluation, ProbeConfig
from scalecli.probes.schedule import Schedule
from scalecli.probes.train import train, train_together
from scalecli.probes.train.averages import Average

PATH = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0])
"""A weight before the first step and after each of seven."""


def read(evaluation: Evaluation) -> float:
    weights = [{"w": torch.tensor([value], dtype=torch.float64)} for value in PATH]
    average = Average(evaluation, weights[0])
    for step, each in enumerate(weights[1:], start=1):
        average.note(each, step)
    return float(average.read(weights[-1], len(PATH) - 1)["w"])


def test_each_average_is_what_it_is_defined_as() -> None:
    after, steps = PATH[1:], np.arange(1, 8)
    # Weights t^2, in the limit of small steps; exactly, the share kept at each step is (1 - 1/t)^3.
    kept = [np.prod([(1 - 1 / later) ** 3 for later in range(step + 1, 8)]) for step in steps]
    new = [1 - (1 - 1 / step) ** 3 for step in steps]
    assert read(Evaluation(averager="power", amount=2)) == pytest.approx(
        np.dot(np.multiply(kept, new), after)
    )
    decays = 0.75 ** (7 - steps)
    assert read(Evaluation(averager="ema", amount=4)) == pytest.approx(np.dot(decays, after) / decays.sum())
    mean = PATH[0]
    for step, value in zip(steps, after, strict=True):
        beta = (10 + step) ** -0.5
        mean = (1 - beta) * mean + beta * value
    expected = mean + 17**-0.2 * (after[-1] - PATH[0])
    assert read(Evaluation(averager="bema")) == pytest.approx(expected)
    assert read(Evaluation(averager="latest", every=2, amount=3)) == pytest.approx(np.mean([5.0, 2.0, 6.0]))


@pytest.mark.parametrize("averager", ["ema", "bema", "latest", "power"])
def test_averages_read_better_at_a_constant_rate_in_every_arrangement(
    config: ProbeConfig, corpus: Corpus, averager: str
) -> None:
    evaluation = Evaluation(sequences=32, every=10, averager=averager, amount=8)  # type: ignore[arg-type]
    constant = replace(config, learning_rate=6e-2, schedule=Schedule(name="constant"), evaluation=evaluation)
    runs = [replace(constant, steps=steps) for steps in (40, 95)]
    branched = {
        row["steps"]: row
        for row in train_together(runs, corpus=corpus, device="cpu")
        if row["kind"] == "result"
    }
    for run in runs:
        *_, alone = train(run, corpus=corpus, device="cpu")
        assert branched[run.steps]["loss"] == alone["loss"]
    if (
        averager != "bema"
    ):  # its published constants add too much of the way since the start for so short a run
        assert branched[95]["loss"] < branched[95]["metric_loss_last_weights"]  # type: ignore[operator]


def test_averages_that_are_none_are_refused() -> None:
    for wrong in ({"averager": "mean"}, {"averager": "ema", "amount": 0.5}, {"averager": "latest"}):
        with pytest.raises(ProbeError):
            Evaluation(**wrong)  # type: ignore[arg-type]
