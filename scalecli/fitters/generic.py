"""The objective of any law that has a gradient: curvature by differencing it.

The Hessian is sum_i w_i (loss'' J_i' J_i + loss' x Hessian of r_i). The last part is the derivative of
S(theta) = sum_i c_i J_i(theta) with the weights c_i = w_i loss'(r_i) held fixed: a smooth function, so that
forward differences of the law's gradient are safe even where the loss has kinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from scalecli.fitters.law import Array, Columns, linear_parameters, names, parameters, with_values
from scalecli.fitters.objective import RowLoss
from scalecli.fitters.problem import Data, Expansion, Indices, Targets

STEP = 1e-6
"""Forward-difference step, relative to max(1, |theta|): the error it leaves in the Hessian only slows
convergence."""

SMALLEST_SCALE = 1e-300
"""Lower bound of a `log` parameter whose own bound is 0."""


@dataclass(frozen=True)
class GenericProblem:
    """A law on data; theta is the logarithm of `log` parameters. See `problem.Problem` for the attributes."""

    law: type[Any]
    loss: RowLoss
    x: Columns
    rows: int
    template: Array
    """Raw parameters, shape (parameters,); only the pinned entries count."""
    free: Indices
    logged: Indices
    """Those of the raw parameters that are free and searched as logarithms."""
    summed: Indices
    """Raw parameters that the prediction is a sum of, each times its slope; empty where it is more than that."""
    low: Array
    high: Array
    bends: Array | None = None
    """Second derivatives of the log predictions at a point near by, (rows, k, k); None takes them where they
    are."""

    @classmethod
    def build(cls, law: type[Any], data: Data, loss: RowLoss, pins: Mapping[str, float]) -> GenericProblem:
        params = parameters(law)
        order = names(law)
        free = [name for name in order if name not in pins]
        bounds = [
            np.log(np.maximum([params[name].low, params[name].high], SMALLEST_SCALE))
            if params[name].log
            else np.array([params[name].low, params[name].high])
            for name in free
        ]
        return cls(
            law=law,
            loss=loss,
            x=data.x,
            rows=data.rows,
            template=np.array([pins.get(name, np.nan) for name in order]),
            free=np.array([order.index(name) for name in free], dtype=np.intp),
            logged=np.array([order.index(name) for name in free if params[name].log], dtype=np.intp),
            summed=_summed(law, data.x),
            low=np.array([bound[0] for bound in bounds]),
            high=np.array([bound[1] for bound in bounds]),
        )

    def to_raw(self, theta: Array) -> Array:
        raw = np.tile(self.template, (len(theta), 1))
        raw[:, self.free] = theta
        raw[:, self.logged] = np.exp(raw[:, self.logged])
        return raw

    def from_raw(self, raw: Array) -> Array:
        theta = raw.copy()
        theta[:, self.logged] = np.log(np.maximum(raw[:, self.logged], SMALLEST_SCALE))
        return theta[:, self.free]

    def with_loss(self, loss: RowLoss) -> Self:
        return replace(self, loss=loss)

    def log_prediction(self, theta: Array) -> Array:
        prediction = with_values(self.law, self.to_raw(theta)).predict(self.x)
        return np.asarray(np.log(np.broadcast_to(prediction, (len(theta), self.rows))))

    def jacobian(self, theta: Array) -> Array:
        return self._prediction_and_slopes(theta)[1]

    def _prediction_and_slopes(self, theta: Array) -> tuple[Array, Array]:
        """The prediction (draws, rows), and the derivatives of its log by theta (draws, rows, k)."""
        raw = self.to_raw(theta)
        shape = (len(theta), self.rows)
        bundle = with_values(self.law, raw)
        gradient = np.broadcast_to(bundle.gradient(self.x), (*shape, raw.shape[1]))
        if self.summed.size:
            prediction = (gradient[:, :, self.summed] @ raw[:, self.summed, None])[:, :, 0]
        else:
            prediction = np.broadcast_to(bundle.predict(self.x), shape)
        chain = np.ones_like(raw)
        chain[:, self.logged] = raw[:, self.logged]
        return prediction, gradient[:, :, self.free] * chain[:, None, self.free] / prediction[:, :, None]

    def expand_block(self, theta: Array, targets: Targets) -> Expansion:
        prediction, slopes = self._prediction_and_slopes(theta)
        loss = self.loss.pieces(np.log(prediction) - targets.log_y)
        pull = targets.weights * loss.first
        turned = slopes.transpose(0, 2, 1)
        return Expansion(
            value=(targets.weights * loss.value).sum(1),
            gradient=_dot(pull, slopes),
            hessian=turned @ ((targets.weights * loss.second)[:, :, None] * slopes)
            + (self._bend(theta, pull, slopes) if self.bends is None else _tensordot(pull, self.bends)),
            majorizer=turned @ ((targets.weights * loss.majorizer)[:, :, None] * slopes),
        )

    def around(self, theta: Array) -> Self:
        """The same problem with the second derivatives at theta (k,) for all points: many draws that start
        there share them, and only the way to their minima is a little longer."""
        here = self.jacobian(theta[None])[0]
        bends = np.empty((self.rows, len(theta), len(theta)))
        for i, step in enumerate(STEP * np.maximum(1.0, np.abs(theta))):
            moved = theta.copy()
            moved[i] += step
            bends[:, i] = (self.jacobian(moved[None])[0] - here) / step
        bends[~np.isfinite(bends).all((1, 2))] = 0.0
        return replace(self, bends=0.5 * (bends + bends.transpose(0, 2, 1)))

    def _bend(self, theta: Array, pull: Array, slopes: Array) -> Array:
        """Derivative of sum over rows of pull x jacobian, (draws, k, k); zero where the law is undefined next
        door."""
        draws, size = theta.shape
        step = STEP * np.maximum(1.0, np.abs(theta))
        moved = theta + np.eye(size)[:, None, :] * step  # (k, draws, k): all neighbours in one evaluation
        there = self.jacobian(moved.reshape(-1, size)).reshape(size, draws, self.rows, size)
        bend = (pull[:, None, :] @ (there - slopes))[:, :, 0, :] / step.T[:, :, None]
        bend = bend.transpose(1, 0, 2)
        bend[~np.isfinite(bend).all((1, 2))] = 0.0
        return 0.5 * (bend + bend.transpose(0, 2, 1))


def _summed(law: type[Any], x: Columns) -> Indices:
    """The linear parameters, where nothing is left of the prediction without them."""
    order, params = names(law), parameters(law)
    linear = [order.index(name) for name in linear_parameters(law)]
    nothing = np.array([(params[name].start or (params[name].low, params[name].high))[0] for name in order])
    nothing[linear] = 0.0
    with np.errstate(all="ignore"):
        rest = with_values(law, nothing).predict(x)
    return np.array(linear if np.all(rest == 0) else [], dtype=np.intp)


def _dot(row_weights: Array, slopes: Array) -> Array:
    """Sum over rows: (draws, rows), (draws, rows, k) -> (draws, k)."""
    return (row_weights[:, None, :] @ slopes)[:, 0, :]


def _tensordot(row_weights: Array, bends: Array) -> Array:
    """Sum over rows: (draws, rows), (rows, k, k) -> (draws, k, k)."""
    return np.tensordot(row_weights, bends, axes=1)
