"""A fit as a curve along one axis: everything else fixed, or at its best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.domain import SIZES
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import Array
from scalecli.fitters.speed import AXIS as HOURS
from scalecli.fitters.speed import Speed

FLOPS_PER_PARAM_TOKEN = 6.0
HOURS_REACH = 6.0
"""Decades of compute on either side of the runs that device-hours are told for."""

SHARES = np.linspace(-3.0, 3.0, 121)
"""Decades by which the size is moved from an even split of compute, where a law does not say its optimum."""


@dataclass(frozen=True)
class Curve:
    """The loss of a fit along `axis`, a column of its law or `flops`; `at` fixes the law's other inputs.

    Along `flops` size and data are the best for that compute (C = 6 N D), and so are the learning rate and
    batch of a landscape; along `device_hours` too, at the speed of the fit's own runs. Raises `DataError` when
    an input is neither the axis, nor fixed, nor optimised.
    """

    fit: Fit
    axis: str
    at: Mapping[str, float]

    def __post_init__(self) -> None:
        law = self.fit.law
        if self._by_hours and self.speed is None:
            raise DataError(
                f"the fit of {law.name} does not know how long its runs took",
                hint="fit with --map device_hours=THEIR_NAME (or tokens_per_second), or compare --along flops",
            )
        optimised = {"flops", _size(law), "tokens"} if self._by_compute else {self.axis}
        if hasattr(law, "tuned_loss"):
            optimised |= {"batch_tokens", "learning_rate"}
        missing = [name for name in law.inputs if name not in {*optimised, *self.at}]
        if missing or not (self._by_compute or self.axis in law.inputs):
            raise DataError(
                f"{law.name} over {', '.join(law.inputs)} is no curve along {self.axis}"
                + (f" without {', '.join(missing)}" if missing else ""),
                hint="--along AXIS names another axis, --at column=value fixes the other inputs",
            )

    @property
    def span(self) -> tuple[float, float]:
        """Where the fit has runs on the axis. Raises `DataError` when it does not say."""
        if self._by_hours and "flops" in self.fit.domain:
            low, high = self._hours_of(np.array(self.fit.domain["flops"]))
            return float(low), float(high)
        if self.axis not in self.fit.domain:
            raise DataError(
                f"the fit of {self.fit.law.name} does not know the {self.axis} of its runs",
                hint=f"--along takes one of {', '.join(self.fit.domain)}",
            )
        low, high = self.fit.domain[self.axis]
        return low, high

    def point(self, places: Array) -> Array:
        """The estimate at places on the axis, (places,) -> (places,)."""
        estimate: Array = self._loss(self.fit.law, places)[0]
        return estimate

    def draws(self, places: Array) -> Array:
        """The same for every draw, (draws, places)."""
        if not len(self.fit.draws):
            return np.empty((0, len(places)))
        return self._loss(self.fit.bundle(), places)

    @property
    def speed(self) -> Speed | None:
        """How fast the fit's runs trained, where it knows."""
        return Speed.of_provenance(self.fit.provenance)

    @property
    def _by_hours(self) -> bool:
        return self.axis == HOURS and HOURS not in self.fit.law.inputs

    @property
    def _by_compute(self) -> bool:
        return self._by_hours or (self.axis == "flops" and self.fit.law.inputs != ("flops",))

    def _hours_of(self, flops: Array) -> Array:
        """Device-hours of compute spent at the best size, (places,)."""
        speed = self.speed
        assert speed is not None
        law = self.fit.law
        even = np.sqrt(flops / FLOPS_PER_PARAM_TOKEN)
        return speed.hours(flops, law.optimal_params(flops) if hasattr(law, "optimal_params") else even)

    def _flops_at(self, hours: Array) -> Array:
        """The compute that so many device-hours buy, (places,)."""
        low, high = np.log10(self.fit.domain["flops"])
        flops = np.logspace(low - HOURS_REACH, high + HOURS_REACH, 400)
        return np.asarray(np.exp(np.interp(np.log(hours), np.log(self._hours_of(flops)), np.log(flops))))

    def _loss(self, law: Any, places: Array) -> Array:
        """(1 or draws, places)."""
        with np.errstate(all="ignore"):
            if not self._by_compute:
                return self._predict(law, {self.axis: places})
            if self._by_hours:
                places = self._flops_at(places)
            if hasattr(law, "optimal_params"):
                size = np.atleast_2d(law.optimal_params(places))
                return self._predict(law, _split(law, places, size))
            even = np.sqrt(places / FLOPS_PER_PARAM_TOKEN)
            tries = [self._predict(law, _split(law, places, even * 10**share)) for share in SHARES]
            return np.asarray(np.nanmin(np.stack(tries), axis=0))

    def _predict(self, law: Any, x: Mapping[str, Array]) -> Array:
        shape = np.broadcast_shapes(*(column.shape for column in x.values()))
        columns = {name: np.full(shape, value) for name, value in self.at.items()} | dict(x)
        if hasattr(law, "tuned_loss") and "learning_rate" not in columns:
            return np.atleast_2d(law.tuned_loss(columns["params"], columns["tokens"]))
        return np.atleast_2d(law.predict(columns))


def _size(law: Any) -> str:
    """The column that the law takes for the model's size."""
    return next((name for name in law.inputs if name in SIZES), "params")


def _split(law: Any, flops: Array, size: Array) -> dict[str, Array]:
    return {"flops": flops, _size(law): size, "tokens": flops / (FLOPS_PER_PARAM_TOKEN * size)}
