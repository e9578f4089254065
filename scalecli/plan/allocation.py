"""The best size and length for a budget, with what comes after training priced in.

A token that the finished model reads or writes is a forward pass: a third of a training token (Sardana et al.,
2401.00448, section 2: 6 N D_train + 2 N D_inference). So a budget that could train A(N) tokens of a model of N
parameters trains A(N) - D_inference / 3, and the best N has the least loss there; or, for a loss that is wanted, the
least cost. A(N) is C / 6 N for a budget of compute, and what the devices train in the time for one of days or money:
layout, communication and all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scalecli.accounting.flops import FLOPS_PER_WEIGHT_TRAINING
from scalecli.accounting.shape import ModelShape, shape_for_params, with_experts
from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.fitters.law import Array
from scalecli.plan.speed import Speed

FORWARD_SHARE = 1 / 3
SERVED_BYTES = 2  # of a weight of the finished model
POINTS = 121  # sizes that are tried, evenly in the logarithm
TIMED = 7  # of them a layout is searched for
# Tokens a parameter that sizes are looked for between.
RATIOS = (1.0, 2000.0)
NEIGHBOURS = (0.25, 0.5, 1.0, 2.0, 4.0)
SECONDS_PER_DAY, SECONDS_PER_HOUR = 86_400, 3_600
BISECTIONS = 60
ROUNDING = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent (one of compute, days or money), or the loss that is wanted at the least compute or time."""

    flops: float | None = None
    days: float | None = None
    money: float | None = None
    loss: float | None = None
    inference_tokens: float = 0.0
    serve_bytes: float | None = None
    """What the finished model's weights may take, experts counted whole."""

    def __str__(self) -> str:
        said = {"FLOPs": self.flops, "days": self.days, "money": self.money, "loss": self.loss}
        text = " and ".join(f"{name} {value:.4g}" for name, value in said.items() if value is not None)
        if self.inference_tokens:
            text += f", with {self.inference_tokens:.3g} tokens of inference"
        if self.serve_bytes is not None:
            text += f", in {self.serve_bytes:.3g} bytes"
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One way to spend the budget. FLOPs by 6 N and 2 N of the active parameters."""

    experts: int
    params: float
    params_active: float
    tokens: float
    loss: float
    training_flops: float
    inference_flops: float
    days: float | None
    amount: float | None
    serve_bytes: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The best allocation, its shape, the interval of its size, and others beside it."""

    best: Allocation
    shape: ModelShape
    params: FitInterval
    rows: tuple[Allocation, ...]


@dataclass(frozen=True, kw_only=True)
class Allocator:
    """The law, and what a token costs. `experts` are the numbers of experts that may be chosen from."""

    law: Any
    budget: Budget
    vocab: int
    fit: Fit | None = None
    speed: Speed | None = None
    experts: Sequence[int] = (1,)
    experts_per_token: int = 1
    _speeds: dict[int, tuple[Array, Array]] = field(default_factory=dict, init=False, repr=False)

    def find(self) -> Found:
        """The allocation of least loss for the budget, or of least cost for the loss.

        Raises PlanError where the budget buys nothing, or no size answers.
        """
        rows = [row for count in self.experts if (row := self._best(count)) is not None]
        if not rows:
            raise PlanError(
                f"no model can be trained with {self.budget}",
                hint="a larger budget, fewer tokens of inference, or more bytes to serve it in",
            )
        best = min(
            rows,
            key=lambda row: (row.loss, self._cost(row)) if self.budget.loss is None else (self._cost(row), 0),
        )
        if len(rows) == 1:
            rows = self._neighbours(best)
        return Found(
            best, self._shape(best.params_active, best.experts), self._interval(best),
            tuple(sorted(rows, key=lambda row: (row.experts, row.params))),
        )  # fmt: skip

    def _best(self, experts: int) -> Allocation | None:
        """With that many experts; None where nothing is affordable."""
        sizes = self._sizes()
        size = self._argmin(self.law, sizes, experts)[0]
        if not np.isfinite(size):
            return None
        return self._row(float(size), experts, "least cost" if self.budget.loss else "least loss")

    def _neighbours(self, best: Allocation) -> list[Allocation]:
        """Smaller and larger models for the same budget or loss."""
        found = []
        for factor in NEIGHBOURS:
            row: Allocation | None = best
            if factor != 1:
                row = self._row(best.params_active * factor, best.experts, f"{factor:g} times the size")
            if row is not None:
                found.append(row)
        return found

    def _interval(self, best: Allocation) -> FitInterval:
        """Of the best active size, over the draws of the fit."""
        if self.fit is None or not len(self.fit.draws):
            return FitInterval(best.params_active, None, None)
        sizes = self._sizes()
        found = self.fit.query(lambda law: self._argmin(law, sizes, best.experts))
        return FitInterval(best.params_active, found.low, found.high)

    def _argmin(self, law: Any, sizes: Array, experts: int) -> Array:
        """The best of the sizes for the law, or for each of its draws; a parabola through the best three."""
        affordable = self._affordable(sizes, experts)
        served = SERVED_BYTES * self._totals(sizes, experts)
        allowed = (
            np.ones(len(sizes), bool)
            if self.budget.serve_bytes is None
            else served <= self.budget.serve_bytes
        )
        with np.errstate(all="ignore"):
            if self.budget.loss is None:
                tokens = affordable - FORWARD_SHARE * self.budget.inference_tokens
                cost = np.where(tokens > 0, self._loss(law, sizes, np.maximum(tokens, 1.0), experts), np.inf)
            else:
                tokens = self._tokens_for_loss(law, sizes, experts)
                cost = (tokens + FORWARD_SHARE * self.budget.inference_tokens) / affordable
        cost = np.where(allowed & np.isfinite(cost), cost, np.inf)
        return _vertex(np.log(sizes), np.atleast_2d(cost))

    def _loss(self, law: Any, sizes: Array, tokens: Array, experts: int) -> Array:
        columns = {
            "params": self._totals(sizes, experts),
            "params_active": sizes,
            "params_non_embedding": sizes,
            "tokens": tokens,
            "unique_tokens": tokens,
            "flops": FLOPS_PER_WEIGHT_TRAINING * sizes * tokens,
            "num_experts": np.full(np.shape(sizes), float(experts)),
        }
        missing = [name for name in law.inputs if name not in columns]
        if missing:
            raise PlanError(
                f"the law {law.name!r} needs {', '.join(missing)}, which no budget says",
                hint="give a fit of a law over params and tokens, such as chinchilla",
            )
        return np.asarray(law.predict({name: columns[name] for name in law.inputs}))

    def _tokens_for_loss(self, law: Any, sizes: Array, experts: int) -> Array:
        """Tokens at which each size reaches the wanted loss; infinite where none do."""
        assert self.budget.loss is not None
        low = np.zeros(np.shape(self._loss(law, sizes, np.ones(len(sizes)), experts)))
        high = low + math.log(1e18)
        reached = self._loss(law, sizes, np.exp(high), experts) <= self.budget.loss
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            enough = self._loss(law, sizes, np.exp(middle), experts) <= self.budget.loss
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.where(reached, np.exp(high), np.inf)

    def _affordable(self, sizes: Array, experts: int) -> Array:
        """Tokens that the whole budget would train at each size; where only a loss is said, one FLOP or day of it."""
        if self.speed is None:
            flops = self.budget.flops if self.budget.flops is not None else 1.0
            return flops / (FLOPS_PER_WEIGHT_TRAINING * sizes)
        return self._seconds() * self._tokens_per_second(sizes, experts)

    def _seconds(self) -> float:
        """Of all devices, that the budget buys."""
        if self.budget.days is not None:
            return self.budget.days * SECONDS_PER_DAY
        if self.budget.money is not None:
            return self.budget.money / self._price_per_second()
        return SECONDS_PER_DAY

    def _price_per_second(self) -> float:
        assert self.speed is not None
        price = self.speed.economy.price(self.speed.fleet.device)
        if not price:
            raise PlanError(
                "money buys nothing without a price", hint="give --price, of one device for an hour"
            )
        return price * self.speed.fleet.count / SECONDS_PER_HOUR

    def _tokens_per_second(self, sizes: Array, experts: int) -> Array:
        """Interpolated between a few sizes that layouts are searched for: it nearly follows a power; 0 beyond them."""
        if experts not in self._speeds:
            self._speeds[experts] = self._search_speeds(experts)
        tried, found = self._speeds[experts]
        if not len(tried):
            return np.zeros(len(sizes))
        between = np.exp(np.interp(np.log(sizes), np.log(tried), np.log(found)))
        return np.where(sizes <= tried[-1] * ROUNDING, between, 0.0)

    def _search_speeds(self, experts: int) -> tuple[Array, Array]:
        """Sizes up to the largest that fits, and tokens a second of each."""
        assert self.speed is not None
        tried, found = [], []
        sizes = self._sizes()
        for size in np.geomspace(sizes[0], sizes[-1], TIMED):
            speed = self.speed.tokens_per_second(self._shape(size, experts))
            if speed is None:
                break
            tried.append(size)
            found.append(speed)
        return np.array(tried), np.array(found)

    def _sizes(self) -> Array:
        """Active sizes between which the best one is looked for."""
        if self.budget.loss is not None:
            return np.geomspace(1e5, 1e13, POINTS)
        flops = self.budget.flops
        if flops is None:
            assert self.speed is not None
            device = self.speed.fleet.device
            flops = self._seconds() * max(device.peak_flops.values()) * self.speed.fleet.count / 2
        ends = [math.sqrt(flops / FLOPS_PER_WEIGHT_TRAINING / ratio) for ratio in reversed(RATIOS)]
        return np.geomspace(max(ends[0], 1e4), max(ends[1], 1e5), POINTS)

    def _row(self, size: float, experts: int, reason: str) -> Allocation | None:
        """What that active size would be trained on, and what it would cost; None where it is not affordable."""
        sizes = np.array([size])
        speed = None if self.speed is None else float(self._tokens_per_second(sizes, experts)[0])
        if speed == 0:
            return None
        if self.budget.loss is None:
            tokens = float(self._affordable(sizes, experts)[0]) - FORWARD_SHARE * self.budget.inference_tokens
        else:
            tokens = float(np.squeeze(self._tokens_for_loss(self.law, sizes, experts)))
        if not (tokens > 0 and math.isfinite(tokens)):
            return None
        seconds = None if speed is None else (tokens + FORWARD_SHARE * self.budget.inference_tokens) / speed
        price = None if self.speed is None else self.speed.economy.price(self.speed.fleet.device)
        return Allocation(
            experts=experts,
            params=float(self._totals(sizes, experts)[0]),
            params_active=size,
            tokens=tokens,
            loss=float(np.squeeze(self._loss(self.law, sizes, np.array([tokens]), experts))),
            training_flops=FLOPS_PER_WEIGHT_TRAINING * size * tokens,
            inference_flops=FORWARD_SHARE * FLOPS_PER_WEIGHT_TRAINING * size * self.budget.inference_tokens,
            days=None if seconds is None else seconds / SECONDS_PER_DAY,
            amount=None if seconds is None or not price else seconds * self._price_per_second(),
            serve_bytes=SERVED_BYTES * float(self._totals(sizes, experts)[0]),
            reason=reason,
        )

    def _cost(self, row: Allocation) -> float:
        return row.days if row.days is not None else row.training_flops + row.inference_flops

    def _shape(self, size: float, experts: int) -> ModelShape:
        dense = shape_for_params(size, vocab=self.vocab)
        if experts == 1:
            return dense
        return with_experts(dense, experts, min(self.experts_per_token, experts))

    def _totals(self, sizes: Array, experts: int) -> Array:
        """Total parameters of active sizes: idle experts come on top."""
        if experts == 1:
            return sizes
        shapes = [self._shape(float(size), experts) for size in sizes]
        totals: Array = sizes * np.array([shape.params / shape.params_active for shape in shapes])
        return totals


def _vertex(logs: Array, cost: Array) -> Array:
    """exp of the vertex of the parabola through the least cost of every row and its neighbours, (rows,).

    NaN where no cost is finite; the end of the range where the least is there.
    """
    best = cost.argmin(axis=1)
    inner = np.clip(best, 1, len(logs) - 2)
    rows = np.arange(len(cost))
    left, middle, right = (cost[rows, inner + shift] for shift in (-1, 0, 1))
    with np.errstate(all="ignore"):
        shift = (left - right) / (2 * (left - 2 * middle + right))
    shift = np.where(np.isfinite(shift) & (np.abs(shift) <= 1) & (inner == best), shift, 0.0)
    found: Array = np.exp(logs[best] + shift * (logs[1] - logs[0]))
    found[~np.isfinite(cost[rows, best])] = np.nan
    return found
