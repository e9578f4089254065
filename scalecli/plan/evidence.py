"""What is known of batch and learning rate at a target, in the order in which it is trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scalecli.errors import PlanError
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.critical import Critical, critical_batch, note_noise_scale
from scalecli.plan.diloco import diloco_presets
from scalecli.plan.document import Budget, Preset
from scalecli.plan.efficiency import Efficiency, efficiency_of
from scalecli.plan.fits import FitSet
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
    def optima(self) -> list[Preset]:
        """The published optima for the budget; critical sizes are another quantity."""
        return [p for p in self.rules if p.quantity == "optimum" and self.budget in (None, p.budget)]


@dataclass(frozen=True, slots=True)
class Folklore:
    """The geometric mean of the rules in their range (of all when none is), and the whole span of all."""

    interval: FitInterval
    rule: str


def folklore(said: Sequence[tuple[float, bool]]) -> Folklore:
    """From what each rule says and whether it is in its range; at least one says something."""
    trusted = [value for value, valid in said if valid] or [value for value, _ in said]
    every = sorted(value for value, _ in said)
    value = math.exp(sum(map(math.log, trusted)) / len(trusted))
    inside = sum(valid for _, valid in said)
    kept = f"the {inside} in their measured range" if inside else "all, none of them in its measured range"
    return Folklore(
        FitInterval(value, every[0], every[-1]),
        f"geometric mean of {len(said)} published rules ({kept}) and their whole span",
    )


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
    critical = critical_batch(fits.critical_batch, target, loss, notes)
    note_noise_scale(fits.noise_scale, critical, target, loss, notes)
    journey = None
    if setting is not None:
        if setting.batch_tokens < target.sequence_length:
            notes.warn(
                "W-BATCH-UNIT",
                f"the good setting's batch of {setting.batch_tokens:g} tokens is less than one sequence of "
                f"{target.sequence_length}: a batch in sequences is multiplied by their length first",
            )
        journey = Journey(
            setting=setting,
            target=target,
            optimizer=optimizer,
            critical_tokens=None if critical is None else critical.tokens.value,
            surge=fits.surge,
        )
    presets = presets_for(target, None if loss is None else loss.value)
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
        raise PlanError(
            f"no published rule of {own[0].source} is stated for fixed {budget}", hint="leave out --fix"
        )
    return known
