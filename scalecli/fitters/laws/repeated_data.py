"""Loss of models trained on repeated data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedData:
    """L(N, D, U) = E + A N'^-alpha + B D'^-beta  [nats/token]; N: parameters, D: tokens, U: unique tokens.

    D' = U + U R_data (1 - e^(-(D/U - 1) / R_data)): repetitions are worth less and less, R_data more passes
    in all. N' = V + V R_params (1 - e^(-(N/V - 1) / R_params)) with V = min(N, the best size for U tokens):
    so are parameters beyond those that the unique data can use. Muennighoff et al. 2023, section 3.

    R_data and R_params are poorly determined by most runs: pin E, A, B, alpha and beta to a fit of runs
    without repetition, and read the intervals.
    """

    name: ClassVar[str] = "repeated-data"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens", "unique_tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("muennighoff2023",)

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True, start=(0.5, 3.0))]
    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True, start=(1e1, 1e5))]
    B: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True, start=(1e1, 1e5))]
    alpha: Annotated[float, Param(0.01, 2.5, start=(0.1, 0.8))]
    beta: Annotated[float, Param(0.01, 2.5, start=(0.1, 0.8))]
    R_data: Annotated[float, Param(1e-2, 1e4, unit="epochs", log=True, start=(0.5, 500.0))]
    R_params: Annotated[float, Param(1e-2, 1e4, log=True, start=(0.5, 500.0))]

    def predict(self, x: Columns) -> Array:
        size = self.effective_params(x["params"], x["unique_tokens"])
        data = self.effective_tokens(x["tokens"], x["unique_tokens"])
        return np.asarray(self.E + self.A * size**-self.alpha + self.B * data**-self.beta)

    def gradient(self, x: Columns) -> Array:
        unique = x["unique_tokens"]
        size, data = self.effective_params(x["params"], unique), self.effective_tokens(x["tokens"], unique)
        size_power, data_power = size**-self.alpha, data**-self.beta
        by_size, by_data = -self.alpha * self.A * size_power / size, -self.beta * self.B * data_power / data
        usable = self._usable_params(x["params"], unique)
        repeats, excess = x["tokens"] / unique - 1, x["params"] / usable - 1
        by_usable = by_size * _by_unique(excess, self.R_params)
        slopes = [
            np.ones_like(size_power),
            size_power,
            data_power,
            -self.A * size_power * np.log(size),
            -self.B * data_power * np.log(data),
            by_data * unique * _by_half_life(repeats, self.R_data),
            by_size * usable * _by_half_life(excess, self.R_params),
        ]
        for i, slope in enumerate(self._usable_slopes(x["params"], unique)):
            slopes[1 + i] = slopes[1 + i] + by_usable * slope
        return np.stack(np.broadcast_arrays(*slopes), axis=-1)

    def effective_tokens(self, tokens: Array | float, unique_tokens: Array | float) -> Array:
        """D': fresh tokens worth as much as these."""
        return _worth(unique_tokens, tokens / unique_tokens - 1, self.R_data)

    def effective_params(self, params: Array | float, unique_tokens: Array | float) -> Array:
        """N': the parameters that the unique data lets the model use."""
        usable = self._usable_params(params, unique_tokens)
        return _worth(usable, params / usable - 1, self.R_params)

    def _best_params(self, unique_tokens: Array | float) -> Array:
        """The compute-optimal size for so many fresh tokens: G (G U)^(beta/alpha)."""
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return np.asarray(balance * (balance * unique_tokens) ** (self.beta / self.alpha))

    def _usable_params(self, params: Array | float, unique_tokens: Array | float) -> Array:
        return np.minimum(params, self._best_params(unique_tokens))

    def _usable_slopes(self, params: Array, unique_tokens: Array) -> list[Array]:
        """Derivatives of V by A, B, alpha and beta; 0 where V = N.

        ln V = (ln g + beta ln U) / alpha with g = alpha A / (beta B).
        """
        best = self._best_params(unique_tokens)
        log_g = np.log(self.alpha * self.A / (self.beta * self.B))
        log_slopes = [
            1 / (self.alpha * self.A),
            -1 / (self.alpha * self.B),
            (1 - log_g - self.beta * np.log(unique_tokens)) / self.alpha**2,
            (np.log(unique_tokens) - 1 / self.beta) / self.alpha,
        ]
        return [np.where(best < params, best * slope, 0.0) for slope in log_slopes]


def _worth(unique: Array | float, repeats: Array | float, half_life: Array | float) -> Array:
    """u + u R (1 - e^(-r / R)): r repetitions of u, each worth less than the one before."""
    return np.asarray(unique * (1 - half_life * np.expm1(-repeats / half_life)))


def _by_half_life(repeats: Array, half_life: Array | float) -> Array:
    """Derivative of `_worth` by R, for u = 1."""
    return np.asarray(-np.expm1(-repeats / half_life) - repeats / half_life * np.exp(-repeats / half_life))


def _by_unique(repeats: Array, half_life: Array | float) -> Array:
    """Derivative of `_worth` by u where u (1 + r) is held fixed, for u = 1."""
    fading = np.exp(-repeats / half_life)
    return np.asarray(1 - half_life * np.expm1(-repeats / half_life) - (1 + repeats) * fading)
