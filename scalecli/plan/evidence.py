"""What is known of batch and learning rate at a target, in the order in which it is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalecli.errors import PlanError
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.critical import Critical, critical_batch, note_noise_scale
from scalecli.plan.diloco import diloco_presets
from scalecli.plan.document import Budget, Preset
from scalecli.plan.efficiency import Efficiency, efficiency_of
from scalecli.plan.fits import FitSet
from scalecli.plan.folklore import published_critical
from scalecli.plan.moving import Journey
from scalecli.plan.notes import Notes
from scalecli.plan.presets import presets_for
from scalecli.plan.rules.setting import Setting
from scalecli.plan.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Fits first, then a good setting moved by rules, then published rules.

    `presets` are shown, `rules` are those of them that count without a fit; `budget` keeps these to rules for fixed
    data or for fixed compute.
    """

    target: Target
    optimizer: str
    fits: FitSet
    presets: Sequence[Preset]
    rules: Sequence[Preset]
    critical: Critical | None = None
    efficiency: Efficiency | None = None
    journey: Journey | None = None
    budget: Budget | None = None

    @property
    def critical_tokens(self) -> float | None:
        return None if self.critical is None else self.critical.tokens.value

    @property
    def optima(self) -> list[Preset]:
        """The published optima for the budget; critical sizes are another quantity."""
        return [p for p in self.rules if p.quantity == "optimum" and self.budget in (None, p.budget)]


def gather(
    target: Target,
    fits: FitSet,
    loss: FitInterval | None,
    setting: Setting | None,
    optimizer: str,
    budget: Budget | None,
    notes: Notes,
) -> Evidence:
    """Everything that bears on batch and learning rate; lines and warnings for what is no recommendation by itself."""
    presets = presets_for(target, None if loss is None else loss.value)
    critical = critical_batch(fits.critical_batch, target, loss, notes)
    if critical is None and fits.landscape is None:
        critical = published_critical(presets, notes)
    if critical is None:
        rule = "needs steps to a loss at several batches (scalecli critical-batch), and a law through them"
        notes.line("critical batch", None, unit="tokens", rule=rule, source="none")
        notes.warn("W-NO-CRITICAL-BATCH", f"the critical batch is not known: {rule}")
    if fits.surge is not None and setting is None:
        notes.warn(
            "W-SURGE-UNUSED",
            "a surge law says how the rate of one good setting moves with the batch: name that setting with --from",
        )
    note_noise_scale(fits.noise_scale, critical, target, loss, notes)
    journey = None if setting is None else _journey(setting, target, optimizer, critical, fits, notes)
    own = [] if target.replicas is None else diloco_presets(target)
    known = Evidence(
        target=target,
        optimizer=optimizer,
        fits=fits,
        presets=[*own, *presets],
        rules=own or presets,
        critical=critical,
        efficiency=efficiency_of(fits, target, critical),
        journey=journey,
        budget=budget,
    )
    if not known.optima:
        kind = own[0].source if own else f"{target.workload} training"
        raise PlanError(f"no published rule of {kind} is stated for fixed {budget}", hint="leave out --fix")
    return known


def _journey(
    setting: Setting, target: Target, optimizer: str, critical: Critical | None, fits: FitSet, notes: Notes
) -> Journey:
    if setting.batch_tokens < target.sequence_length:
        notes.warn(
            "W-BATCH-UNIT",
            f"the good setting's batch of {setting.batch_tokens:g} tokens is less than one sequence of "
            f"{target.sequence_length}: a batch in sequences is multiplied by their length first",
        )
    return Journey(
        setting=setting,
        target=target,
        optimizer=optimizer,
        critical_tokens=None if critical is None else critical.tokens.value,
        surge=fits.surge,
    )
