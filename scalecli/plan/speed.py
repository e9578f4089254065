"""How fast given devices train: seconds of a step and tokens a second, for any model and batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from scalecli.accounting.flops import training_flops_per_token
from scalecli.accounting.memory import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError
from scalecli.plan.cost import NOTHING_KNOWN, Economy
from scalecli.plan.devices import fastest_on, plan_on
from scalecli.plan.fleet import Fleet
from scalecli.plan.goodput import plan_checkpoints
from scalecli.plan.layout import Choice
from scalecli.plan.memory import MemoryPlan
from scalecli.plan.replicas import Replicas
from scalecli.plan.step.conditions import STANDARD, Conditions
from scalecli.plan.step.engine import peak_flops

# Where no batch is known yet: about what models of a billion parameters and more are trained with.
USUAL_BATCH_TOKENS = 2**21

Found = TypeVar("Found")
Asked = tuple[ModelShape, int]
"""A model, and the sequences of a step."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The devices, and how they train; a layout is searched once for every model and batch that is asked about."""

    fleet: Fleet
    recipe: Recipe
    sequence_length: int
    conditions: Conditions = STANDARD
    economy: Economy = NOTHING_KNOWN
    replicas: Replicas | None = None
    """That train apart; None for one model that all devices train together."""
    _planned: dict[Asked, MemoryPlan | PlanError] = field(default_factory=dict, init=False, repr=False)
    _chosen: dict[Asked, Choice | PlanError] = field(default_factory=dict, init=False, repr=False)

    def layout(self, shape: ModelShape, sequences: int) -> MemoryPlan:
        """The fastest layout that fits, with alternatives. Raises PlanError for impossible wishes, DoesNotFit where
        none fits."""
        return self._once(self._planned, plan_on, shape, sequences)

    def fastest(self, shape: ModelShape, sequences: int) -> Choice:
        """The layout alone, found sooner. Raises what `layout` raises."""
        return self._once(self._chosen, fastest_on, shape, sequences)

    def _once(
        self,
        known: dict[Asked, Found | PlanError],
        search: Callable[..., Found],
        shape: ModelShape,
        sequences: int,
    ) -> Found:
        asked = shape, sequences
        if asked not in known:
            try:
                known[asked] = search(
                    self.fleet, shape, sequence_length=self.sequence_length, batch_sequences=sequences,
                    recipe=self.recipe, conditions=self.conditions, replicas=self.replicas,
                )  # fmt: skip
            except PlanError as error:
                known[asked] = error
        found = known[asked]
        if isinstance(found, PlanError):
            raise found
        return found

    def step_seconds(self, shape: ModelShape, sequences: int) -> float | None:
        """Of a batch; None where the devices cannot run it."""
        try:
            found = self.fastest(shape, sequences)
        except PlanError:
            return None
        if self.economy.measured_mfu is not None:
            flops = sequences * self.sequence_length * training_flops_per_token(shape, self.sequence_length)
            return flops / (
                self.economy.measured_mfu * peak_flops(self.fleet.device, self.recipe) * self.fleet.count
            )
        return found.seconds

    def tokens_per_second(self, shape: ModelShape, sequences: int | None = None) -> float | None:
        """Interruptions counted as far as they are known. Without a batch, at about two million tokens."""
        sequences = sequences or self.usual_batch
        seconds = self.step_seconds(shape, sequences)
        if seconds is None:
            return None
        return self.goodput(shape, sequences) * sequences * self.sequence_length / seconds

    def goodput(self, shape: ModelShape, sequences: int) -> float:
        """The share of time that makes progress; 1 where nothing is known of interruptions."""
        if self.economy.goodput is not None:
            return self.economy.goodput
        if self.economy.device_seconds is None:
            return 1.0
        found = self.fastest(shape, sequences)
        return plan_checkpoints(
            shape, found.recipe, found.layout, sequence_length=self.sequence_length,
            device_seconds=self.economy.device_seconds,
        ).goodput  # fmt: skip

    @property
    def usual_batch(self) -> int:
        """Sequences: a multiple of the devices with about two million tokens, at least one each."""
        each = USUAL_BATCH_TOKENS / self.sequence_length / self.fleet.count
        return self.fleet.count * (1 << max(0, round(math.log2(max(1.0, each)))))
