"""What a law with a basin around power-law optima can be asked, whatever the shape of the basin.

Laws bind these functions as their methods, for they inherit from nothing: `law` has the fields annotated below. It
brings the height of its basin, `excess(u, v)`, and the bottom line of its valley, `bottom(v)`, in offsets from the
optimum, u = ln(lr / lr*) and v = ln(batch / batch*). Arguments are numbers or arrays; of a bundle, (draws, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from scalecli.errors import NotIdentified
from scalecli.fitters.landscape.flat_range import FLAT, FlatRange
from scalecli.fitters.landscape.search import crossing
from scalecli.fitters.law import Array, Columns, Param

Floor = Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
Size = Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
Fall = Annotated[float, Param(0.0, 2.5)]
RateScale = Annotated[float, Param(1e-30, 1e30, log=True)]
BatchScale = Annotated[float, Param(1e-30, 1e30, unit="tokens", log=True)]
Exponent = Annotated[float, Param(-3.0, 3.0)]
RateCurvature = Annotated[float, Param(1e-6, 100.0, unit="nats/token", log=True)]
CrossCurvature = Annotated[float, Param(-100.0, 100.0, unit="nats/token")]
BatchCurvature = Annotated[float, Param(0.0, 100.0, unit="nats/token")]

INPUTS = ("params", "tokens", "batch_tokens", "learning_rate")

REACH = 12.0
"""Flat ranges end here if the loss never notices: a factor of e^12 from the optimum."""


def predict(law: Any, x: Columns) -> Array:
    loss: Array = tuned_loss(law, x["params"], x["tokens"]) + excess_loss(law, *(x[name] for name in INPUTS))
    return loss


def tuned_loss(law: Any, params: Array | float, tokens: Array | float) -> Array:
    """Loss at the optimum [nats/token]."""
    loss: Array = law.E + law.A * params**-law.alpha + law.B * tokens**-law.beta
    return loss


def optimal_learning_rate(law: Any, params: Array | float, tokens: Array | float) -> Array:
    """lr*(N, D) = lr_scale N^lr_params D^lr_tokens, at the optimal batch."""
    rate: Array = law.lr_scale * params**law.lr_params * tokens**law.lr_tokens
    return rate


def optimal_batch_tokens(law: Any, params: Array | float, tokens: Array | float) -> Array:
    """batch*(N, D) [tokens]. Raises `NotIdentified` where the runs do not determine it."""
    _require_batch(law)
    return central_batch(law, params, tokens)


def central_batch(law: Any, params: Array | float, tokens: Array | float) -> Array:
    """batch*, or where the runs do not determine it the batch that they used [tokens]."""
    batch: Array = law.batch_scale * params**law.batch_params * tokens**law.batch_tokens
    return batch


def optimal_learning_rate_at(
    law: Any, params: Array | float, tokens: Array | float, batch_tokens: Array | float
) -> Array:
    """The rate re-tuned for this batch. Raises `NotIdentified` where the runs did not vary the batch."""
    _require_batch(law)
    v = np.log(batch_tokens / central_batch(law, params, tokens))
    rate: Array = optimal_learning_rate(law, params, tokens) * np.exp(law.bottom(v))
    return rate


def excess_loss(
    law: Any,
    params: Array | float,
    tokens: Array | float,
    batch_tokens: Array | float,
    learning_rate: Array | float,
) -> Array:
    """Nats per token above the optimum of this (N, D)."""
    excess: Array = law.excess(*offsets(law, params, tokens, batch_tokens, learning_rate))
    return excess


def flat_range(
    law: Any, params: Array | float, tokens: Array | float, tolerance: Array | float = FLAT
) -> FlatRange:
    """Where the loss stays within this fraction of its optimum; rates at the best batch."""
    batch = central_batch(law, params, tokens)
    rates = flat_rates_at(law, params, tokens, batch, tolerance)
    if not _has_batch(law):
        return FlatRange(None, rates)
    nats = tolerance * tuned_loss(law, params, tokens) + np.zeros_like(batch)
    return FlatRange(_ends(batch, lambda v: law.excess(law.bottom(v), v), nats), rates)


def flat_rates_at(
    law: Any,
    params: Array | float,
    tokens: Array | float,
    batch_tokens: Array | float,
    tolerance: Array | float = FLAT,
) -> tuple[Array, Array]:
    """Rates at which the loss stays within this fraction of the optimum above the least at this batch."""
    v = np.log(batch_tokens / central_batch(law, params, tokens))
    u = law.bottom(v)
    floor = law.excess(u, v)
    nats = tolerance * tuned_loss(law, params, tokens) + np.zeros_like(v)
    best = optimal_learning_rate(law, params, tokens) * np.exp(u)
    return _ends(best, lambda off: law.excess(u + off, v) - floor, nats)


def offsets(
    law: Any,
    params: Array | float,
    tokens: Array | float,
    batch_tokens: Array | float,
    learning_rate: Array | float,
) -> tuple[Array, Array]:
    """u and v."""
    u = np.log(learning_rate / optimal_learning_rate(law, params, tokens))
    return u, np.log(batch_tokens / central_batch(law, params, tokens))


def centre_gradient(law: Any, x: Columns, by_rate: Array, by_batch: Array) -> list[Array]:
    """Derivatives of the loss by E to batch_tokens, from those of the excess by ln lr* and ln batch*."""
    log_params, log_tokens = np.log(x["params"]), np.log(x["tokens"])
    size, data = x["params"] ** -law.alpha, x["tokens"] ** -law.beta
    return [
        np.ones_like(by_rate),
        size,
        -law.A * size * log_params,
        data,
        -law.B * data * log_tokens,
        by_rate / law.lr_scale,
        by_rate * log_params,
        by_rate * log_tokens,
        by_batch / law.batch_scale,
        by_batch * log_params,
        by_batch * log_tokens,
    ]


def _ends(best: Array, excess: Callable[[Array], Array], nats: Array) -> tuple[Array, Array]:
    low, high = (best * np.exp(crossing(excess, nats, side)) for side in (-REACH, REACH))
    return low, high


def _has_batch(law: Any) -> bool:
    return bool(np.all(law.curvature_batch > 0))


def _require_batch(law: Any) -> None:
    if not _has_batch(law):
        raise NotIdentified(
            "the runs do not determine an optimal batch: too few batch sizes at each (params, tokens), or "
            "all on one side of the best",
            hint="scalecli probe sweep with at least four --batch-tokens at every size",
        )
