"""The critical batch at the target: a limit on parallelism, in its own definition, never the recommended batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.critical.definitions import HYPERBOLA
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.notes import Notes
from scalecli.plan.target import Target

# Zhang et al. 2024 (2410.21676), section 3: where steps exceed linear scaling by a fifth.
OVERHEAD = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Critical:
    """A critical batch [tokens], what is meant by it, and what it rests on: a fit, or presets."""

    tokens: FitInterval
    definition: str
    source: str = "fit"

    @property
    def is_hyperbola(self) -> bool:
        """Whether training at it costs twice the least tokens, so that other batches follow from it."""
        return self.definition == HYPERBOLA

    def overhead_from(self, batch_tokens: float) -> FitInterval:
        """Where steps exceed linear scaling from `batch_tokens` by a fifth: 0.2 B_crit + 1.2 B0."""
        ends = [self.tokens.value, self.tokens.low, self.tokens.high]
        moved = [None if end is None else OVERHEAD * end + (1 + OVERHEAD) * batch_tokens for end in ends]
        assert moved[0] is not None, "a value is always known"
        return FitInterval(moved[0], moved[1], moved[2])


def critical_batch(
    fit: Fit | None, target: Target, loss: FitInterval | None, notes: Notes
) -> Critical | None:
    """The critical batch at the target; None, with a warning, where the law asks for what is not known."""
    if fit is None:
        return None
    columns = target.counted(fit).columns() | ({} if loss is None else {"loss": loss.value})
    missing = [name for name in fit.law.inputs if name not in columns and name != "batch_tokens"]
    if missing:
        notes.warn(
            "W-CRITICAL-INPUT",
            f"the law {fit.law.name} needs {', '.join(missing)}, which neither the target nor a fit says",
        )
        return None
    setup = fit.provenance.get("setup") or {}
    definition = str(setup.get("definition", HYPERBOLA))
    measured_with = f"; measured with {setup['optimizer']}" if "optimizer" in setup else ""
    found = fit.query(lambda law: _tokens(law, columns))
    if fit.law.name == "critical-batch":
        notes.warn(
            "W-CRITICAL-ONE-TARGET",
            "the critical batch was measured at one loss of the probes; it grows with the tokens trained on, so that "
            "the target's is larger",
        )
    notes.line(
        "critical batch", found, unit="tokens", rule=f"{fit.law.name} law{measured_with}; {definition}", source="fit",
        warning="a limit on parallelism, not the batch of least loss",
    )  # fmt: skip
    return Critical(tokens=found, definition=definition)


def _tokens(law: Any, columns: Mapping[str, float]) -> Any:
    if law.name == "critical-batch":
        return law.B_crit
    return law.predict({name: np.array([columns[name]]) for name in law.inputs})


def note_noise_scale(
    fit: Fit | None, critical: Critical | None, target: Target, loss: FitInterval | None, notes: Notes
) -> None:
    """Say the gradient noise scale and its ratio to the measured critical batch; it is no batch to train at."""
    if fit is None:
        return
    columns = target.counted(fit).columns() | ({} if loss is None else {"loss": loss.value})
    try:
        found = fit.query(lambda law: _tokens(law, columns))
    except KeyError as error:
        raise DataError(
            f"the law {fit.law.name} needs {error}", hint="give a loss fit with --fit as well"
        ) from error
    notes.line(
        "gradient noise scale", found, unit="tokens", rule=f"{fit.law.name} law", source="fit",
        warning="not a batch size: measured critical batches differ from it by orders of magnitude",
    )  # fmt: skip
    if critical is not None:
        notes.line(
            "noise scale over critical batch", _ratio(found, critical.tokens), unit="1",
            rule="measured ratio at the target; 1 would make the noise scale a critical batch", source=critical.source,
        )  # fmt: skip


def _ratio(above: FitInterval, below: FitInterval) -> FitInterval:
    """The quotient of two independent positive values; its ends are those of the logarithms, added in square."""

    def end(up: float | None, down: float | None) -> float | None:
        if up is None or down is None:
            return None
        return float(np.hypot(np.log(up / above.value), np.log(down / below.value)))

    value = above.value / below.value
    low, high = end(above.low, below.high), end(above.high, below.low)
    return FitInterval(
        value,
        None if low is None else value * float(np.exp(-low)),
        None if high is None else value * float(np.exp(high)),
    )


def note_overhead(critical: Critical | None, batch_tokens: float, notes: Notes) -> None:
    """The 20 %-overhead batch counted from the one that is run, and a warning past the critical one."""
    if critical is None or not critical.is_hyperbola:
        return
    notes.line(
        "batch at 20 % overhead", critical.overhead_from(batch_tokens), unit="tokens",
        rule="0.2 B_crit + 1.2 B0, counted from the batch B0 that is run", source="zhang2024cbs",
    )  # fmt: skip
    if batch_tokens > critical.tokens.value:
        notes.warn(
            "W-BATCH-PAST-CRITICAL",
            f"the batch of {batch_tokens:.3g} tokens is beyond the critical one of {critical.tokens.value:.3g}, "
            "where twice the tokens are spent",
        )
