"""How fast given devices train: seconds of a step and tokens a second, for any model and batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scalecli.accounting.flops import training_flops_per_token
from scalecli.accounting.memory import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError
from scalecli.plan.cost import NOTHING_KNOWN, Economy
from scalecli.plan.devices import plan_on
from scalecli.plan.fleet import Fleet
from scalecli.plan.goodput import plan_checkpoints
from scalecli.plan.layout import Choice
from scalecli.plan.step.conditions import STANDARD, Conditions
from scalecli.plan.step.engine import peak_flops

# Where no batch is known yet: about what models of a billion parameters and more are trained with.
USUAL_BATCH_TOKENS = 2**21


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The devices, and how they train; a layout is searched for every model and batch that is asked about."""

    fleet: Fleet
    recipe: Recipe
    sequence_length: int
    conditions: Conditions = STANDARD
    economy: Economy = NOTHING_KNOWN
    _found: dict[tuple[ModelShape, int], Choice | None] = field(default_factory=dict, init=False, repr=False)

    def step_seconds(self, shape: ModelShape, sequences: int) -> float | None:
        """Of a batch; None where the devices cannot run it."""
        if self.economy.measured_mfu is not None:
            flops = training_flops_per_token(shape, self.sequence_length)
            return sequences * self.sequence_length * flops / self._measured_flops(self.economy.measured_mfu)
        choice = self.choice(shape, sequences)
        return None if choice is None else choice.seconds

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
        choice = None if self.economy.device_seconds is None else self.choice(shape, sequences)
        if choice is None or self.economy.device_seconds is None:
            return 1.0
        return plan_checkpoints(
            shape, choice.recipe, choice.layout, sequence_length=self.sequence_length,
            device_seconds=self.economy.device_seconds,
        ).goodput  # fmt: skip

    @property
    def usual_batch(self) -> int:
        """Sequences: a multiple of the devices with about two million tokens, at least one each."""
        each = USUAL_BATCH_TOKENS / self.sequence_length / self.fleet.count
        return self.fleet.count * (1 << max(0, round(math.log2(max(1.0, each)))))

    def choice(self, shape: ModelShape, sequences: int) -> Choice | None:
        """The layout of a batch; None where no layout can run it."""
        key = (shape, sequences)
        if key not in self._found:
            try:
                self._found[key] = plan_on(
                    self.fleet, shape, sequence_length=self.sequence_length, batch_sequences=sequences,
                    recipe=self.recipe, conditions=self.conditions,
                ).chosen  # fmt: skip
            except PlanError:
                self._found[key] = None
        return self._found[key]

    def _measured_flops(self, mfu: float) -> float:
        return mfu * peak_flops(self.fleet.device, self.recipe) * self.fleet.count
