"""Optimizer settings and schedule: those of the probes, because the fitted optimum holds for them.

Without probes they are one published recipe, and every line says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalecli.plan.document import OptimizerPart
from scalecli.plan.notes import Notes
from scalecli.plan.rules.moved import Moved
from scalecli.plan.target import Target

# Touvron et al. 2023 (2302.13971), section 2.2: AdamW and clipping of the LLaMA models.
PUBLISHED_OPTIMIZER: Mapping[str, Any] = {
    "optimizer": "adamw", "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1, "grad_clip": 1.0,
}  # fmt: skip
# Bergsma et al. 2025 (2502.15938), section 4: linear decay to zero after a warm-up of 10 % of the tokens.
PUBLISHED_SCHEDULE: Mapping[str, Any] = {
    "schedule": "linear", "warmup_fraction": 0.1, "final_learning_rate_fraction": 0.0, "decay_fraction": 0.9,
}  # fmt: skip
MOVABLE = ("beta1", "beta2", "epsilon", "weight_decay", "ema_decay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Shape of the learning rate over the run; fractions are of all tokens, `final` is of the peak."""

    name: str
    warmup: float
    decay: float
    final: float


def optimizer_name(setup: Mapping[str, Any], wished: str | None) -> str:
    """The wished optimizer, else that of the runs, else of the published recipe."""
    return str(wished or setup.get("optimizer") or PUBLISHED_OPTIMIZER["optimizer"])


def choose_optimizer(
    name: str, setup: Mapping[str, Any], moved: Sequence[Moved], notes: Notes
) -> OptimizerPart:
    """The optimizer's settings, each a line of the plan: of the runs, else of the moved setting, else published.

    Of several rules for one value the first in `moved` counts; all stand in the plan.
    """
    known = dict(setup)
    for entry in moved:
        if entry.quantity in MOVABLE and entry.value is not None and known.get(entry.quantity) is None:
            known[entry.quantity] = entry
    chosen = {
        key: _setting(key, known.get(key), published, "touvron2023", notes)
        for key, published in PUBLISHED_OPTIMIZER.items()
        if key != "optimizer"
    }
    chosen["ema_decay"] = (
        _setting("ema_decay", known["ema_decay"], None, "", notes) if "ema_decay" in known else None
    )
    return OptimizerPart(name=name, **chosen)


def choose_schedule(setup: Mapping[str, Any], target: Target, notes: Notes) -> Schedule:
    """The schedule of the probes, in fractions of the run; a warm-up tied to the model's size stays tied to it."""
    known = dict(setup)
    if "warmup_fraction" not in known and "warmup_tokens_per_param" in known:
        known["warmup_fraction"] = min(1.0, known["warmup_tokens_per_param"] * target.params / target.tokens)
    chosen = {
        name: _setting(name, known.get(name), published, "bergsma2025", notes)
        for name, published in PUBLISHED_SCHEDULE.items()
    }
    return Schedule(
        name=chosen["schedule"],
        warmup=chosen["warmup_fraction"],
        decay=chosen["decay_fraction"],
        final=chosen["final_learning_rate_fraction"],
    )


def _setting(name: str, known: Any, published: Any, source: str, notes: Notes) -> Any:
    if isinstance(known, Moved):
        notes.line(name, known.value, unit="", rule=known.rule, source=known.source, warning=known.warning)
        return known.value
    if known is not None:
        rule = "what the runs held fixed; the optimum holds for it"
        notes.line(name, known, unit="", rule=rule, source="runs")
        return known
    warning = "not measured by the runs of any fit"
    notes.line(name, published, unit="", rule="a published recipe", source=source, warning=warning)
    return published
