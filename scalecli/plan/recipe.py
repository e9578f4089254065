"""Optimizer settings and schedule: those of the probes, because the fitted optimum holds for them.

Without probes they are one published recipe, and every line says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scalecli.plan.document import OptimizerPart
from scalecli.plan.notes import Notes
from scalecli.plan.target import Target

# Touvron et al. 2023 (2302.13971), section 2.2: AdamW and clipping of the LLaMA models.
PUBLISHED_OPTIMIZER: Mapping[str, Any] = {
    "optimizer": "adamw", "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1, "grad_clip": 1.0,
}  # fmt: skip
# Bergsma et al. 2025 (2502.15938), section 4: linear decay to zero after a warm-up of 10 % of the tokens.
PUBLISHED_SCHEDULE: Mapping[str, Any] = {
    "schedule": "linear", "warmup_fraction": 0.1, "final_learning_rate_fraction": 0.0, "decay_fraction": 0.9,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Shape of the learning rate over the run; fractions are of all tokens, `final` is of the peak."""

    name: str
    warmup: float
    decay: float
    final: float


def choose_optimizer(setup: Mapping[str, Any], wished: str | None, notes: Notes) -> OptimizerPart:
    """The optimizer and its settings, each a line of the plan. A wished optimizer wins over that of the runs."""
    chosen: dict[str, Any] = {}
    if wished is not None:
        setup = {**setup, "optimizer": wished}
    for name, published in PUBLISHED_OPTIMIZER.items():
        chosen[name] = _setting(name, setup.get(name), published, "touvron2023", notes)
    ema_decay = setup.get("ema_decay")
    return OptimizerPart(
        name=chosen["optimizer"],
        beta1=chosen["beta1"],
        beta2=chosen["beta2"],
        weight_decay=chosen["weight_decay"],
        epsilon=chosen["epsilon"],
        grad_clip=chosen["grad_clip"],
        ema_decay=ema_decay,
    )


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


def _setting(name: str, measured: Any, published: Any, source: str, notes: Notes) -> Any:
    if measured is not None:
        notes.line(
            name, measured, unit="", rule="what the runs held fixed; the optimum holds for it", source="runs"
        )
        return measured
    notes.line(
        name,
        published,
        unit="",
        rule="a published recipe",
        source=source,
        warning="not measured by the runs of any fit",
    )
    return published
