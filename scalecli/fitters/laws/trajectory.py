"""Loss along a training of any size at any batch: Kaplan's size and step terms, joined by the critical batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.inverse import column_for_term
from scalecli.fitters.law import Array, Columns, Param

ROUNDS = 40
"""Newton steps for the loss at most; a handful suffice, because the equation's slope lies between two constants."""

EXACT = 1e-13


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """L(N, S, b) solves L = A N^-alpha + B (S / (1 + B_star L^(-1/alpha_B) / b))^-beta  [nats/token].

    N: parameters (the papers count them without embeddings), S: steps, b: batch in tokens. S over the bracket is
    S_min, what the loss would have taken at large batches; B_star L^(-1/alpha_B) is the critical batch. Rows are
    points of loss curves at a constant or slowly falling rate, of several sizes and batches. Kaplan et al. 2020,
    equations 5.3 to 5.6; step by step in Su et al. 2024, sections 3 and 4.
    """

    name: ClassVar[str] = "trajectory"
    inputs: ClassVar[tuple[str, ...]] = ("params", "steps", "batch_tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("kaplan2020", "su2024")

    A: Annotated[float, Param(1e-3, 1e6, unit="nats/token", log=True, start=(3.0, 60.0))]
    alpha: Annotated[float, Param(1e-3, 1.0, start=(0.03, 0.25))]
    B: Annotated[float, Param(1e-3, 1e9, unit="nats/token", log=True, start=(5.0, 5e3))]
    beta: Annotated[float, Param(1e-2, 2.5, start=(0.3, 1.2))]
    B_star: Annotated[float, Param(1e-3, 1e30, unit="tokens", log=True, start=(1e5, 1e11))]
    alpha_B: Annotated[float, Param(0.01, 10.0, log=True, start=(0.1, 1.0))]

    def predict(self, x: Columns) -> Array:
        return self._solved(x)[0]

    def gradient(self, x: Columns) -> Array:
        loss, size, time, excess = self._solved(x)
        held = time * self.beta * excess / (1 + excess)
        slopes = [
            size / self.A,
            -size * np.log(x["params"]),
            time / self.B,
            time * (np.log1p(excess) - np.log(x["steps"])),
            held / self.B_star,
            held * np.log(loss) / self.alpha_B**2,
        ]
        # the loss stands on both sides: a change of the right side moves it by less
        damped = 1 + held / (self.alpha_B * loss)
        return np.stack(np.broadcast_arrays(*(slope / damped for slope in slopes)), axis=-1)

    def min_loss(self, params: Array | float) -> Array | float:
        """The loss of endless training."""
        return self.A * params**-self.alpha

    def critical_batch_tokens(self, loss: Array | float) -> Array | float:
        """B_crit(L) [tokens], at which training costs twice the least steps and twice the least tokens."""
        return self.B_star * loss ** (-1 / self.alpha_B)

    def min_steps(self, loss: Array | float, params: Array | float) -> Array:
        """S_min: steps to the loss at batches far above the critical one; NaN at and below the least loss."""
        return column_for_term(loss - self.min_loss(params), self.B, self.beta)

    def min_tokens(self, loss: Array | float, params: Array | float) -> Array:
        """E_min = S_min B_crit: tokens to the loss at batches far below the critical one."""
        return np.asarray(self.min_steps(loss, params) * self.critical_batch_tokens(loss))

    def steps_for_loss(
        self, loss: Array | float, params: Array | float, batch_tokens: Array | float
    ) -> Array:
        """S = S_min (1 + B_crit / b); NaN where this size never reaches the loss."""
        return np.asarray(
            self.min_steps(loss, params) * (1 + self.critical_batch_tokens(loss) / batch_tokens)
        )

    def _solved(self, x: Columns) -> tuple[Array, Array, Array, Array]:
        """The loss, its two terms, and B_crit / b there."""
        size = np.asarray(self.A * x["params"] ** -self.alpha)
        fast = np.asarray(self.B * x["steps"] ** -self.beta)
        log_loss = np.log(size + fast)  # at endless batches: below the solution
        for _ in range(ROUNDS):
            excess = self.B_star / x["batch_tokens"] * np.exp(-log_loss / self.alpha_B)
            time = fast * (1 + excess) ** self.beta
            held = self.beta / self.alpha_B * time / (size + time) * excess / (1 + excess)
            change = (np.log(size + time) - log_loss) / (1 + held)
            log_loss = log_loss + change
            if not np.any(np.abs(change) > EXACT):
                break
        return np.exp(log_loss), size, time, excess
