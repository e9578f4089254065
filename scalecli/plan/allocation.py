"""The best size and length for what may be spent, and others beside it.

What could train A(N) tokens of a model of N parameters trains A(N) - D_inference / 3 where inference is paid from it,
and the best N has the least loss there; or, for a loss that is wanted, the least cost. A(N) is C / 6 N for a budget of
compute, and what the devices train in the time for one of days or money: layout, communication and all.
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
from scalecli.plan.spending import SECONDS_PER_DAY, SERVED_BYTES, Spending, price_per_second

POINTS = 121  # sizes that are tried, evenly in the logarithm
TIMED = 7  # of them a layout is searched for
APPROACHES = 4  # halvings of the distance to a size that does not fit
# Tokens a parameter that sizes are looked for between; sizes where only a loss is known; and how far at least they
# reach down from the largest.
RATIOS = (1.0, 2000.0)
SIZES = (1e5, 1e13)
SMALLEST = 10
MOST_TOKENS = 1e18
NEIGHBOURS = (0.25, 0.5, 1.0, 2.0, 4.0)
BISECTIONS = 60
ROUNDING = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One way to spend it. FLOPs by 6 N and 2 N of the active parameters."""

    num_experts: int
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

    @property
    def cost(self) -> float:
        """Days where the devices are known, else FLOPs."""
        return self.training_flops + self.inference_flops if self.days is None else self.days


@dataclass(frozen=True, slots=True)
class Sizes:
    """Models by what laws count of them, each (models,); all have as many experts."""

    active: Array
    total: Array
    non_embedding: Array
    experts: int

    @classmethod
    def of(cls, shapes: Sequence[ModelShape]) -> Sizes:
        """Counted from their shapes."""
        counts = [(shape.params_active, shape.params, shape.params_non_embedding) for shape in shapes]
        active, total, non_embedding = np.array(counts, dtype=float).T
        return cls(active, total, non_embedding, shapes[0].num_experts)


@dataclass(frozen=True, slots=True)
class Found:
    """The best allocation, its shape, the interval of its active size, and others beside it."""

    best: Allocation
    shape: ModelShape
    params_active: FitInterval
    rows: tuple[Allocation, ...]


@dataclass(frozen=True, kw_only=True)
class Allocator:
    """The law, and what a token costs. Of `experts`, numbers of them that may be chosen from, a token visits one."""

    law: Any
    spending: Spending
    vocab: int
    fit: Fit | None = None
    """Whose draws give the interval of the size."""
    speed: Speed | None = None
    experts: Sequence[int] = (1,)
    _speeds: dict[int, tuple[Array, Array]] = field(default_factory=dict, init=False, repr=False)

    def find(self) -> Found:
        """The allocation of least loss for the budget, or of least cost for the loss.

        Raises PlanError where the budget buys nothing, or no size answers.
        """
        rows = [row for count in self.experts if (row := self._best(count)) is not None]
        if not rows:
            raise PlanError(
                f"no model can be trained for {self.spending}",
                hint="more to spend, more or larger devices, fewer tokens of inference, or more bytes to serve it in",
            )
        wanted = self.spending.loss
        best = min(rows, key=lambda row: row.loss if wanted is None else row.cost)
        if len(rows) == 1:
            rows = self._neighbours(best)
        return Found(
            best, self._shape(best.params_active, best.num_experts), self._interval(best),
            tuple(sorted(rows, key=lambda row: (row.num_experts, row.params))),
        )  # fmt: skip

    def _best(self, experts: int) -> Allocation | None:
        """With that many experts; None where nothing is affordable."""
        size = float(self._argmin(self.law, self._sizes(), experts)[0])
        if not math.isfinite(size):
            return None
        return self._row(size, experts, "least loss" if self.spending.loss is None else "least cost")

    def _neighbours(self, best: Allocation) -> list[Allocation]:
        """Smaller and larger models for the same budget or loss."""
        found = []
        for factor in NEIGHBOURS:
            row: Allocation | None = best
            if factor != 1:
                row = self._row(best.params_active * factor, best.num_experts, f"{factor:g} times the size")
            if row is not None:
                found.append(row)
        return found

    def _interval(self, best: Allocation) -> FitInterval:
        """Of the best active size, over the draws of the fit."""
        if self.fit is None or not len(self.fit.draws):
            return FitInterval(best.params_active, None, None)
        sizes = self._sizes()
        found = self.fit.query(lambda law: self._argmin(law, sizes, best.num_experts)[:, None])
        return FitInterval(best.params_active, found.low, found.high)

    def _argmin(self, law: Any, sizes: Array, experts: int) -> Array:
        """The best of the sizes for the law, or for each of its draws; by a parabola through the best three."""
        affordable, models = self._affordable(sizes, experts), self._models(sizes, experts)
        most = math.inf if self.spending.serve_bytes is None else self.spending.serve_bytes
        wanted, paid = self.spending.loss, self.spending.inference_as_training
        with np.errstate(all="ignore"):
            if wanted is None:
                tokens = affordable - paid
                cost = np.where(tokens > 0, _loss(law, models, np.maximum(tokens, 1.0)), np.inf)
            else:
                cost = (_tokens_for_loss(law, models, wanted) + paid) / affordable
        cost = np.where((SERVED_BYTES * models.total <= most) & np.isfinite(cost), cost, np.inf)
        return _vertex(np.log(sizes), np.atleast_2d(cost))

    def _affordable(self, sizes: Array, experts: int) -> Array:
        """Training tokens that the whole budget would buy at each size; 0 where the devices cannot hold it."""
        speeds = None if self.speed is None else self._tokens_per_second(sizes, experts)
        return self.spending.buys(sizes, speeds, self.speed)

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
        assert self.speed is not None, "asked for with devices only"
        sizes = self._sizes()
        found: dict[float, float] = {}
        for size in np.geomspace(sizes[0], sizes[-1], TIMED):
            speed = self.speed.tokens_per_second(self._shape(size, experts))
            if speed is None:
                self._approach(size, found, experts)
                break
            found[size] = speed
        return np.array(list(found)), np.array(list(found.values()))

    def _approach(self, size: float, found: dict[float, float], experts: int) -> None:
        """Find sizes nearer to one that does not fit, if any fits."""
        assert self.speed is not None, "asked for with devices only"
        for _ in range(APPROACHES if found else 0):
            middle = math.sqrt(max(found) * size)
            speed = self.speed.tokens_per_second(self._shape(middle, experts))
            if speed is None:
                size = middle
            else:
                found[middle] = speed

    def _sizes(self) -> Array:
        """Active sizes between which the best one is looked for: by tokens a parameter, and by what devices hold."""
        low, high = SIZES if self.spending.loss is not None else self._sizes_by_ratio()
        if self.speed is not None:
            devices = self.speed.fleet
            high = min(high, devices.count * devices.device.memory_bytes / SERVED_BYTES)
        return np.geomspace(min(low, high / SMALLEST), high, POINTS)

    def _sizes_by_ratio(self) -> tuple[float, float]:
        flops = self.spending.flops
        if flops is None:
            assert self.speed is not None, "days and money need devices"
            peak = max(self.speed.fleet.device.peak_flops.values()) * self.speed.fleet.count
            flops = self.spending.seconds(self.speed) * peak / 2
        low, high = (math.sqrt(flops / FLOPS_PER_WEIGHT_TRAINING / ratio) for ratio in reversed(RATIOS))
        return max(low, SIZES[0] / SMALLEST), max(high, SIZES[0])

    def _row(self, size: float, experts: int, reason: str) -> Allocation | None:
        """What that active size would be trained on, and what it would cost; None where it is not affordable."""
        sizes, paid = np.array([size]), self.spending.inference_as_training
        model = self._models(sizes, experts)
        total = float(model.total[0])
        speed = None if self.speed is None else float(self._tokens_per_second(sizes, experts)[0])
        if speed == 0:
            return None
        if self.spending.loss is None:
            tokens = float(self._affordable(sizes, experts)[0]) - paid
        else:
            tokens = float(np.squeeze(_tokens_for_loss(self.law, model, self.spending.loss)))
        if not (tokens > 0 and math.isfinite(tokens)):
            return None
        seconds = None if speed is None else (tokens + paid) / speed
        return Allocation(
            num_experts=experts,
            params=total,
            params_active=size,
            tokens=tokens,
            loss=float(np.squeeze(_loss(self.law, model, np.array([tokens])))),
            training_flops=FLOPS_PER_WEIGHT_TRAINING * size * tokens,
            inference_flops=FLOPS_PER_WEIGHT_TRAINING * size * paid,
            days=None if seconds is None else seconds / SECONDS_PER_DAY,
            amount=self._amount(seconds),
            serve_bytes=SERVED_BYTES * total,
            reason=reason,
        )

    def _amount(self, seconds: float | None) -> float | None:
        if seconds is None or self.speed is None or not self.speed.economy.price(self.speed.fleet.device):
            return None
        return seconds * price_per_second(self.speed)

    def _shape(self, size: float, experts: int) -> ModelShape:
        return with_experts(shape_for_params(size, vocab=self.vocab), experts, 1)

    def _models(self, sizes: Array, experts: int) -> Sizes:
        """Active sizes with what else laws count; idle experts come on top, embedding and head are the vocabulary's."""
        if not {"params_non_embedding", "num_experts"} & set(self.law.inputs):
            return Sizes(sizes, sizes, sizes, experts)
        counted = Sizes.of([self._shape(float(size), experts) for size in sizes])
        scale = sizes / counted.active
        return Sizes(sizes, scale * counted.total, scale * counted.non_embedding, experts)


def tokens_of(
    shape: ModelShape, spending: Spending, speed: Speed | None, law: Any = None, sequences: int | None = None
) -> float:
    """What the budget trains of this very shape, at a batch where one is known; for a wanted loss what `law` says.

    Raises PlanError where that is nothing, or infinite.
    """
    models = Sizes.of([shape])
    if spending.loss is not None:
        tokens = _tokens_for_loss(law, models, spending.loss)
    else:
        speeds = None
        if speed is not None:
            speeds = np.array([speed.tokens_per_second(shape, sequences) or 0.0])
        tokens = spending.buys(models.active, speeds, speed) - spending.inference_as_training
    found = float(np.squeeze(tokens))
    if not (found > 0 and math.isfinite(found)):
        raise PlanError(
            f"{shape.params:.3g} parameters cannot be trained for {spending}",
            hint="more to spend, or more or larger devices; without a size the best one is found",
        )
    return found


def _tokens_for_loss(law: Any, models: Sizes, wanted: float) -> Array:
    """Tokens at which each model reaches the wanted loss; infinite where none do."""
    low = np.zeros(np.shape(_loss(law, models, np.ones(len(models.total)))))
    high = low + math.log(MOST_TOKENS)
    reached = _loss(law, models, np.exp(high)) <= wanted
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        enough = _loss(law, models, np.exp(middle)) <= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reached, np.exp(high), np.inf)


def _loss(law: Any, models: Sizes, tokens: Array) -> Array:
    columns = {
        "params": models.total,
        "params_active": models.active,
        "params_non_embedding": models.non_embedding,
        "num_experts": np.full(len(models.total), float(models.experts)),
        "tokens": tokens,
        "unique_tokens": tokens,
        "flops": FLOPS_PER_WEIGHT_TRAINING * models.active * tokens,
    }
    missing = [name for name in law.inputs if name not in columns]
    if missing:
        raise PlanError(
            f"the law {law.name!r} needs {', '.join(missing)}, which no budget says",
            hint="give a fit of a law over params and tokens, such as chinchilla",
        )
    return np.asarray(law.predict({name: columns[name] for name in law.inputs}))


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
