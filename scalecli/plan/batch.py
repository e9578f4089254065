"""The batch: what to recommend, what other sizes would cost, and how it may grow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scalecli.errors import NotIdentified, PlanError
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.document import BatchPart, Choice, Preset, Stage
from scalecli.plan.fits import FitSet
from scalecli.plan.loss import extra_tokens
from scalecli.plan.notes import Notes, as_interval
from scalecli.plan.target import Target

# Within this share of the loss two settings count as equally good: seeds of one run differ by about as much.
FLAT_TOLERANCE = 1e-3
TRADEOFF_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The recommended batch before it is rounded to what a layout can run [tokens]."""

    tokens: FitInterval | None
    flat_range: tuple[float, float] | None
    critical: FitInterval | None

    @property
    def value(self) -> float | None:
        return None if self.tokens is None else self.tokens.value


def recommend_batch(
    target: Target, fits: FitSet, presets: list[Preset], max_extra_tokens: float | None, notes: Notes
) -> Batch:
    """The batch size of least loss at fixed tokens, or the largest within `max_extra_tokens` of the least tokens."""
    critical = critical_batch(fits.critical_batch, target, notes)
    best = _from_landscape(fits.landscape, target, notes)
    if best is None:
        best = _from_presets(presets, notes)
    flat = _flat_range(fits, target)
    if max_extra_tokens is not None:
        best = _largest_within(max_extra_tokens, best, fits, target, critical, notes)
    if best is not None and critical is not None and best.value > critical.value:
        notes.warn(
            "W-BATCH-PAST-CRITICAL",
            f"the recommended batch of {best.value:.3g} tokens is beyond the critical one of {critical.value:.3g}, "
            "where twice the tokens are spent",
        )
    return Batch(tokens=best, flat_range=flat, critical=critical)


def _from_landscape(fit: Fit | None, target: Target, notes: Notes) -> FitInterval | None:
    if fit is None:
        return None
    try:
        found = fit.query(lambda law: law.optimal_batch_tokens(target.params, target.tokens))
    except NotIdentified as error:
        notes.warn("W-BATCH-NOT-IDENTIFIED", error.message)
        return None
    notes.line(
        "batch",
        found,
        unit="tokens",
        rule=f"least loss at fixed tokens: the optimum of the {fit.law.name} law",
        source="fit",
    )
    return found


def _from_presets(presets: list[Preset], notes: Notes) -> FitInterval | None:
    """The middle of what published optima say, with their whole spread as the interval."""
    said = sorted(p.batch_tokens for p in presets if p.quantity == "optimum" and p.batch_tokens is not None)
    if not said:
        return None
    middle = math.exp(sum(math.log(b) for b in said) / len(said))
    found = FitInterval(value=middle, low=said[0], high=said[-1])
    notes.line(
        "batch", found, unit="tokens", rule=f"geometric mean and whole spread of {len(said)} published rules",
        source="presets", warning="folklore until probes are run",
    )  # fmt: skip
    notes.warn(
        "W-FOLKLORE",
        f"no landscape was fitted: the batch is the middle of published rules, which here span "
        f"{said[-1] / said[0]:.0f}×; run `scalecli probe sweep` and fit a landscape",
    )
    return found


def _flat_range(fits: FitSet, target: Target) -> tuple[float, float] | None:
    if fits.landscape is None:
        return None
    found = fits.landscape.law.flat_range(target.params, target.tokens, FLAT_TOLERANCE).batch_tokens
    return None if found is None else (float(found[0]), float(found[1]))


def critical_batch(fit: Fit | None, target: Target, notes: Notes) -> FitInterval | None:
    """The critical batch size at the target, in the definition of the law that was fitted."""
    if fit is None:
        return None
    columns = target.columns()
    missing = [name for name in fit.law.inputs if name not in columns and name != "batch_tokens"]
    if missing:
        notes.warn(
            "W-CRITICAL-INPUT",
            f"the law {fit.law.name} needs {', '.join(missing)}, which the target does not say",
        )
        return None
    found = fit.query(lambda law: _critical_tokens(law, columns))
    notes.line(
        "critical batch", found, unit="tokens", rule=f"{fit.law.name}: at this batch training costs twice the tokens",
        source="fit", warning="a critical size is a limit, not an optimum",
    )  # fmt: skip
    return found


def _critical_tokens(law: Any, columns: dict[str, float]) -> Any:
    if law.name == "critical-batch":
        return law.B_crit
    import numpy as np

    return law.predict({name: np.array([columns[name]]) for name in law.inputs})


def _largest_within(
    share: float,
    best: FitInterval | None,
    fits: FitSet,
    target: Target,
    critical: FitInterval | None,
    notes: Notes,
) -> FitInterval:
    """The largest batch whose extra tokens stay within `share`, by the landscape or by the hyperbola."""
    rule = f"largest batch within {share:.1%} extra tokens"
    if fits.landscape is not None and fits.loss is not None and best is not None:
        low, high = best.value, best.value * 1e4
        for _ in range(60):
            middle = math.sqrt(low * high)
            extra = extra_tokens_fraction(middle, fits, target)
            low, high = (middle, high) if extra is not None and extra <= share else (low, middle)
        scale = low / best.value
        found = FitInterval(value=low, low=_times(best.low, scale), high=_times(best.high, scale))
        notes.line(
            "batch within extra tokens", found, unit="tokens", rule=rule, source="landscape and loss law"
        )
        return found
    if critical is not None:
        # E = E_min (1 + B / B_crit): McCandlish et al. 2018, equation 2.12.
        found = FitInterval(
            value=share * critical.value, low=_times(critical.low, share), high=_times(critical.high, share)
        )
        notes.line("batch within extra tokens", found, unit="tokens", rule=rule, source="mccandlish2018")
        return found
    raise PlanError(
        "the extra tokens of a larger batch are not known without a fit",
        hint="give a landscape with a loss law, or a critical-batch fit, with --fit",
    )


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def extra_tokens_fraction(batch_tokens: float, fits: FitSet, target: Target) -> float | None:
    """Tokens beyond the least for the same loss at this batch with its own best learning rate; None if unknown."""
    if fits.landscape is None or fits.loss is None or not _has_batch(fits.landscape, target):
        return None
    law = fits.landscape.law
    rate = law.optimal_learning_rate_at(target.params, target.tokens, batch_tokens)
    excess = float(law.excess_loss(target.params, target.tokens, batch_tokens, rate))
    return extra_tokens(fits.loss, target, excess)


def _has_batch(fit: Fit, target: Target) -> bool:
    """Whether the runs determine an optimal batch at all."""
    return fit.law.flat_range(target.params, target.tokens, FLAT_TOLERANCE).batch_tokens is not None


def round_batch(batch_tokens: float, target: Target, multiple: int) -> int:
    """Sequences a step: the nearest multiple of what the layout runs at once, at least one of it."""
    sequences = batch_tokens / target.sequence_length
    return max(multiple, round(sequences / multiple) * multiple)


def tradeoff(best: float, fits: FitSet, target: Target, days: float | None) -> list[Choice]:
    """What a quarter to eight times the batch would cost."""
    rows = []
    for factor in TRADEOFF_FACTORS:
        tokens = max(1, round(best * factor / target.sequence_length)) * target.sequence_length
        extra = extra_tokens_fraction(tokens, fits, target)
        rate = None
        if fits.landscape is not None and _has_batch(fits.landscape, target):
            rate = float(fits.landscape.law.optimal_learning_rate_at(target.params, target.tokens, tokens))
        rows.append(
            Choice(
                batch_tokens=tokens,
                steps=math.ceil(target.tokens / tokens),
                extra_tokens_fraction=extra,
                learning_rate=rate,
                days=None if days is None else days * (1 + (extra or 0.0)),
            )
        )
    return rows


def batch_part(
    batch: Batch, sequences: int | None, fits: FitSet, target: Target, days: float | None
) -> BatchPart:
    """The `batch` key of the plan."""
    tokens = None if sequences is None else sequences * target.sequence_length
    return BatchPart(
        tokens=as_interval(batch.tokens),
        sequences=sequences,
        sequence_length=target.sequence_length,
        steps=None if tokens is None else math.ceil(target.tokens / tokens),
        critical_tokens=as_interval(batch.critical),
        flat_range_tokens=batch.flat_range,
        tradeoff=[] if batch.value is None else tradeoff(batch.value, fits, target, days),
        schedule=[] if tokens is None else [Stage(from_token=0, batch_tokens=tokens)],
    )
