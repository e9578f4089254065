"""Optimizer settings and schedule: those of the probes, because the fitted optimum holds for them.

Without probes they are one published recipe, and every line says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalecli.data.catalogue import optimizer as known_optimizer
from scalecli.plan.document import OptimizerPart
from scalecli.plan.notes import Notes
from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.optimizer import shares_decays
from scalecli.plan.rules.setting import Setting
from scalecli.plan.target import Target

PUBLISHED_OPTIMIZER = "adamw"
SETTINGS = ("beta1", "beta2", "epsilon", "weight_decay", "grad_clip")
MOVABLE = ("beta1", "beta2", "epsilon", "weight_decay", "ema_decay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Shape of the learning rate over the run; fractions are of all tokens, `final` is of the peak."""

    name: str
    warmup: float
    decay: float
    final: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSchedule:
    """A schedule that somebody found good, and the key of who did."""

    schedule: Schedule
    source: str


# Bergsma et al. 2025 (2502.15938), section 4: linear decay to zero after a warm-up of 10 % of the tokens.
PRETRAINING = PublishedSchedule(
    schedule=Schedule(name="linear", warmup=0.1, decay=0.9, final=0.0), source="bergsma2025"
)
# Pareja et al. 2024 (2412.13337), section 3: a constant rate without warm-up is as good as a cosine with one.
FINE_TUNING = PublishedSchedule(
    schedule=Schedule(name="constant", warmup=0.0, decay=0.0, final=1.0), source="pareja2024"
)


def optimizer_name(setup: Mapping[str, Any], setting: Setting | None, wished: str | None) -> str:
    """The wished optimizer, else that of the runs, of the good setting, or of the published recipe."""
    said = setup.get("optimizer") or (None if setting is None else setting.optimizer)
    return known_optimizer(wished or said or PUBLISHED_OPTIMIZER).name


def expected_beta2(name: str, setup: Mapping[str, Any], setting: Setting | None) -> float | None:
    """The decay of second moments before the batch is known, which may move it; None for optimizers without one."""
    if setup.get("optimizer", name) == name and setup.get("beta2") is not None:
        return float(setup["beta2"])
    if setting is not None and setting.beta2 is not None and shares_decays(setting.optimizer, name):
        return setting.beta2
    return known_optimizer(name).settings.get("beta2")


def choose_optimizer(
    name: str, setup: Mapping[str, Any], moved: Sequence[Moved], notes: Notes
) -> OptimizerPart:
    """The optimizer's settings, each a line of the plan: of the runs, else of the moved setting, else published.

    Of several rules for one value the first in `moved` counts; all stand in the plan. What runs with another optimizer
    held fixed is no setting of this one.
    """
    known = dict(setup) if setup.get("optimizer", name) == name else {}
    for entry in moved:
        if entry.quantity in MOVABLE and entry.value is not None and known.get(entry.quantity) is None:
            known[entry.quantity] = entry
    published = known_optimizer(name)
    chosen = {
        key: _setting(key, known.get(key), published.settings.get(key), published.settings_source, notes)
        for key in SETTINGS
        if key in known or key in published.settings
    }
    average = _setting("ema_decay", known["ema_decay"], None, "", notes) if "ema_decay" in known else None
    if published.note:
        notes.line(
            f"{name} against others", published.note, unit="", rule="published", source=published.source
        )
    return OptimizerPart(name=name, **{key: chosen.get(key) for key in SETTINGS}, ema_decay=average)


def choose_schedule(setup: Mapping[str, Any], target: Target, notes: Notes) -> Schedule:
    """The schedule of the probes, in fractions of the run; a warm-up tied to the model's size stays tied to it."""
    known = dict(setup)
    if "warmup_fraction" not in known and "warmup_tokens_per_param" in known:
        known["warmup_fraction"] = min(1.0, known["warmup_tokens_per_param"] * target.params / target.tokens)
    published = FINE_TUNING if target.workload == "fine-tuning" else PRETRAINING
    said = published.schedule

    def setting(name: str, default: Any) -> Any:
        return _setting(name, known.get(name), default, published.source, notes)

    return Schedule(
        name=setting("schedule", said.name),
        warmup=setting("warmup_fraction", said.warmup),
        decay=setting("decay_fraction", said.decay),
        final=setting("final_learning_rate_fraction", said.final),
    )


def _setting(name: str, known: Any, published: Any, source: str, notes: Notes) -> Any:
    if isinstance(known, Moved):
        notes.line(
            name, known.value, unit="", rule=known.rule, source=known.source, warning=known.warning,
            no_interval="an identity of your setting",
        )  # fmt: skip
        return known.value
    if known is not None:
        rule = "what the runs held fixed; the optimum holds for it"
        notes.line(name, known, unit="", rule=rule, source="runs")
        return known
    notes.line(
        name, published, unit="", rule="a published recipe", source=source,
        warning="not measured by the runs of any fit", no_interval="a recipe states no spread",
    )  # fmt: skip
    return published
