"""Averages over past weights, read instead of the weights, so that a constant rate needs no cooldown to be read.

- `power` weighs step t by t^amount (Karras et al. 2024, 2312.02696, section 3.1): it spans a fixed share of the
  training so far, about 1 / amount, at every length.
- `ema` forgets over `amount` steps, corrected for its start as Adam's moments are.
- `bema` adds to a slowing average a vanishing share of the way since the start, against its lag (Block & Zhang 2025,
  2508.00180). Its published constants are those of fine-tuning, where that way is short.
- `latest` is the mean of the weights at the last `amount` readings (Sanyal et al. 2023, 2306.03241).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scalecli.probes.config import Evaluation

Weights = dict[str, Tensor]

BEMA_OFFSET, BEMA_MULTIPLIER, BEMA_EMA_POWER, BEMA_BIAS_POWER = 10.0, 1.0, 0.5, 0.2
"""rho, gamma, kappa and eta of Block & Zhang 2025 (2508.00180): their defaults."""


class Average:
    """The average that an evaluation asks for; `start` are the weights before the first step."""

    def __init__(self, evaluation: Evaluation, start: Mapping[str, Tensor]) -> None:
        self._name, self._amount, self._every = evaluation.averager, evaluation.amount, evaluation.every
        self._mean = _copied(start)
        self._start = _copied(start) if self._name == "bema" else {}
        self._latest: list[Weights] = []

    @torch.no_grad()
    def note(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Takes in the weights after `step` steps."""
        if self._name == "latest":
            if step % self._every == 0:
                self._latest = [*self._latest[1 - int(self._amount) :], _copied(weights)]
            return
        share = self._share(step)
        for name, mean in self._mean.items():
            mean.lerp_(weights[name], share)

    def _share(self, step: int) -> float:
        """What the newest weights count: 1 at the first step, where nothing came before."""
        if self._name == "power":
            return float(1 - (1 - 1 / step) ** (self._amount + 1))
        if self._name == "ema":
            kept = 1 - 1 / self._amount
            return float((1 - kept) / (1 - kept**step))
        return float((BEMA_OFFSET + BEMA_MULTIPLIER * step) ** -BEMA_EMA_POWER)

    @torch.no_grad()
    def read(self, weights: Mapping[str, Tensor], step: int) -> Weights:
        """The average after `step` steps, to be evaluated in place of `weights`."""
        if self._name == "latest":
            # A reading between two of the noted steps, such as the last one, has the present weights in it.
            noted = (
                self._latest if step % self._every == 0 else [*self._latest[1 - int(self._amount) :], weights]
            )
            return {name: torch.stack([each[name] for each in noted]).mean(dim=0) for name in weights}
        if self._name == "bema":
            lag = (BEMA_OFFSET + BEMA_MULTIPLIER * step) ** -BEMA_BIAS_POWER
            return {
                name: mean + lag * (weights[name] - self._start[name]) for name, mean in self._mean.items()
            }
        return self._mean

    def state(self) -> dict[str, Any]:
        return {
            "mean": _copied(self._mean),
            "start": _copied(self._start),
            "latest": [_copied(each) for each in self._latest],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._mean, self._start = _copied(state["mean"]), _copied(state["start"])
        self._latest = [_copied(each) for each in state["latest"]]


def _copied(weights: Mapping[str, Tensor]) -> Weights:
    return {name: value.detach().clone() for name, value in weights.items()}
