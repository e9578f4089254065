"""From fitted constants to a training: the least loss, steps and tokens, the critical batch, the loss at every step.

The constants come from one fit of `trajectory`, or step by step (Su et al. 2024) from a fit of `kaplan-steps` (size and
steps at large batches) and one of `critical-batch-loss`. Such constants hold for the set-up they were measured in:
rate, context, batch, tokenizer and data change them, so that fits of different set-ups are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.errors import DataError
from scalecli.fitters.fit import Fit, Interval
from scalecli.fitters.law import Array, Columns, names, scalar_of, values
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.kaplan_steps import KaplanSteps
from scalecli.fitters.laws.trajectory import Trajectory

SOURCE = "su2024"

LOSSES = 6
STEPS = 9
"""Losses and steps that are told where none are asked for."""

KNOWN_BY = {"batch_tokens", "learning_rate"}
"""Settings that the runs of one step may vary on purpose, and those of another keep: no contradiction."""


@dataclass(frozen=True)
class Chain:
    """The law of a training with its draws (draws, parameters), and the fit that each constant is from."""

    law: Trajectory
    draws: Array
    origins: Mapping[str, Fit]
    level: float

    @property
    def fits(self) -> list[Fit]:
        """The fits, each once."""
        return list({id(fit): fit for fit in self.origins.values()}.values())

    def interval(self, of: Callable[[Any], Any]) -> Interval:
        """A number computed from the law; `value` is NaN where it has no answer."""
        value = float(scalar_of(of, Trajectory, values(self.law)[None])[0])
        drawn = scalar_of(of, Trajectory, self.draws)
        known = drawn[np.isfinite(drawn)]
        if not known.size:
            return Interval(value, None, None, drawn.size)
        low, high = np.quantile(known, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Interval(value, float(low), float(high), drawn.size - known.size)


def chain_of(fits: Sequence[Fit], level: float, *, across_setups: bool = False) -> tuple[Chain, list[Notice]]:
    """The chain that these fits make, and warnings.

    Raises `DataError` for fits that make none, and for set-ups that contradict each other unless `across_setups`
    asks for a warning instead.
    """
    notices = _check_setups(fits, across_setups)
    by_law = {type(fit.law): fit for fit in fits}
    if set(by_law) == {Trajectory} and len(fits) == 1:
        fit = fits[0]
        return Chain(fit.law, fit.draws, dict.fromkeys(names(Trajectory), fit), level), notices
    if set(by_law) == {KaplanSteps, CriticalBatchLoss} and len(fits) == 2:
        return _joined(by_law[KaplanSteps], by_law[CriticalBatchLoss], level), notices
    raise DataError(
        f"fits of {', '.join(fit.law.name for fit in fits)} do not make a training's law",
        hint="give one fit of trajectory, or one of kaplan-steps and one of critical-batch-loss",
    )


def chain_document(
    chain: Chain,
    notices: Sequence[Notice],
    *,
    params: float,
    batch_tokens: float,
    losses: Sequence[float] = (),
    steps: Sequence[float] = (),
) -> dict[str, Any]:
    """The document of `scalecli trajectory` for a model of this size at this batch.

    Raises `DataError` for a size, batch, loss or number of steps that is not positive.
    """
    least_asked = min(params, batch_tokens, *losses, *steps)
    if least_asked <= 0:
        raise DataError(
            f"a training has positive params, batch_tokens, losses and steps; got {least_asked:g}"
        )
    least = chain.interval(lambda law: law.min_loss(params))
    steps = steps or _usual_steps(chain)
    point = {"params": np.array([params]), "batch_tokens": np.array([batch_tokens])}
    readings = [chain.interval(_loss_at({**point, "steps": np.array([step])})) for step in steps]
    losses = losses or _usual_losses(least.value, [reading.value for reading in readings])
    told = [*notices, *(notice for fit in chain.fits for notice in fit.warnings)]
    return {
        "schema": "scalecli/trajectory/1",
        "at": {"params": params, "batch_tokens": batch_tokens},
        "interval": chain.level,
        "constants": [
            {"name": name, **(_ends(chain.interval(_constant(name))) or {}), **_origin(fit)}
            for name, fit in chain.origins.items()
        ],
        "min_loss": _ends(least),
        "losses": [_at_loss(chain, loss, params, batch_tokens) for loss in losses],
        "trajectory": [
            {"steps": float(step), "tokens": float(step * batch_tokens), "loss": _ends(reading)}
            for step, reading in zip(steps, readings, strict=True)
        ],
        "warnings": [{"code": notice.code, "message": notice.message} for notice in told],
    }


def _joined(steps: Fit, critical: Fit, level: float) -> Chain:
    """Size and steps from one fit, the critical batch from the other; their draws are independent."""
    count = min(len(steps.draws), len(critical.draws))
    law = Trajectory(
        A=steps.law.A,
        alpha=steps.law.alpha,
        B=steps.law.B,
        beta=steps.law.beta,
        B_star=critical.law.B_star,
        alpha_B=critical.law.alpha,
    )
    order = [names(KaplanSteps).index(name) for name in ("A", "alpha", "B", "beta")]
    draws = np.concatenate([steps.draws[:count, order], critical.draws[:count]], axis=1)
    origins = dict.fromkeys(("A", "alpha", "B", "beta"), steps) | dict.fromkeys(
        ("B_star", "alpha_B"), critical
    )
    return Chain(law, draws, origins, level)


def _check_setups(fits: Sequence[Fit], across: bool) -> list[Notice]:
    """Where fits were measured in different set-ups, or do not say in which."""
    setups = [dict(fit.provenance.get("setup") or {}) for fit in fits]
    differing = {
        name: [setup[name] for setup in setups if name in setup]
        for name in dict.fromkeys(name for setup in setups for name in setup)
        if name not in KNOWN_BY and len({str(setup[name]) for setup in setups if name in setup}) > 1
    }
    if differing:
        said = "; ".join(f"{name} {' and '.join(map(str, kinds))}" for name, kinds in differing.items())
        fact = f"the constants were measured in different set-ups ({said}), and change with them ({SOURCE})"
        if not across:
            raise DataError(fact, hint="fit all of them to runs of one set-up, or --across-setups to go on")
        return [Notice("W-SETUP-MISMATCH", fact)]
    silent = [fit.law.name for fit, setup in zip(fits, setups, strict=True) if not setup]
    if silent:
        fact = f"the runs of {', '.join(silent)} do not say their set-up (rate, context, tokenizer, data)"
        return [Notice("W-SETUP-UNKNOWN", f"{fact}: the constants hold for that one only ({SOURCE})")]
    return []


def _at_loss(chain: Chain, loss: float, params: float, batch_tokens: float) -> dict[str, Any]:
    """Critical batch, least steps and tokens at a loss, and what reaching it takes at the batch; null out of reach."""
    asked: dict[str, Callable[[Any], Any]] = {
        "critical_batch_tokens": lambda law: law.critical_batch_tokens(loss),
        "S_min": lambda law: law.min_steps(loss, params),
        "E_min": lambda law: law.min_tokens(loss, params),
        "steps": lambda law: law.steps_for_loss(loss, params, batch_tokens),
        "tokens": lambda law: law.steps_for_loss(loss, params, batch_tokens) * batch_tokens,
    }
    return {"loss": loss, **{name: _ends(chain.interval(of)) for name, of in asked.items()}}


def _loss_at(x: Columns) -> Callable[[Any], Any]:
    return lambda law: law.predict(x)


def _constant(name: str) -> Callable[[Any], Any]:
    return lambda law: getattr(law, name)


def _origin(fit: Fit) -> dict[str, Any]:
    return {
        "fit": fit.law.name,
        "data_sha256": fit.provenance.get("data_sha256"),
        "setup": dict(fit.provenance.get("setup") or {}),
    }


def _usual_steps(chain: Chain) -> list[float]:
    """Steps over the runs' range and ten times further, in three digits."""
    low, high = chain.origins["beta"].domain["steps"]
    return [float(f"{step:.2g}") for step in np.geomspace(low, 10 * high, STEPS)]


def _usual_losses(least: float, seen: Sequence[float]) -> list[float]:
    """Losses between those of the steps told, in three digits."""
    known = [loss for loss in seen if np.isfinite(loss)]
    if not known:
        return []
    span = np.linspace(max(known), max(min(known), least * 1.001), LOSSES + 2)[1:-1]
    return [float(f"{loss:.3g}") for loss in span]


def _ends(found: Interval) -> dict[str, Any] | None:
    """value, low, high; None where there is no answer."""
    return {"value": found.value, "low": found.low, "high": found.high} if np.isfinite(found.value) else None
