"""The training step, for any subject: one model, or a stack of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scalecli.data.corpus import Corpus
from scalecli.probes.config import ProbeConfig
from scalecli.probes.subjects import subject_of
from scalecli.probes.subjects.subject import Batch, Stratum
from scalecli.probes.train.acceleration import Acceleration, RecordedStep, compile_step
from scalecli.probes.train.averages import Average
from scalecli.probes.train.flat import Flat
from scalecli.probes.train.optimizers import (
    build_optimizers,
    make_recordable,
    restore_optimizer,
    set_rates,
)
from scalecli.probes.train.sharded import Sharded, shard
from scalecli.probes.train.spread import Spread

ALONE = Spread()
PLAIN = Acceleration()


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """Mean loss over the held-out examples and its standard error, both [nats/token]; in a mixture the domains' means,
    too, of which it is the mean by their shares."""

    mean: float
    std_error: float
    by_domain: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, losses: Tensor, strata: Sequence[Stratum]) -> HeldOutLoss:
        """From the loss of every example, (n,), stratum after stratum."""
        parts = losses.split([stratum.examples for stratum in strata])
        means = [float(part.mean()) for part in parts]
        errors = [float(part.std()) / math.sqrt(len(part)) for part in parts]
        return cls(
            math.fsum(stratum.share * mean for stratum, mean in zip(strata, means, strict=True)),
            math.hypot(*(stratum.share * error for stratum, error in zip(strata, errors, strict=True))),
            {stratum.name: mean for stratum, mean in zip(strata, means, strict=True) if stratum.name},
        )


class Trainer:
    """Copies that share everything but seed, learning rate and weight decay, step by step.

    Raises:
        DataError: the data are too few, or not those that the configuration names.
        ProbeError: the model cannot be built.
    """

    def __init__(
        self,
        configs: Sequence[ProbeConfig],
        corpus: Corpus,
        *,
        device: torch.device,
        spread: Spread = ALONE,
        acceleration: Acceleration = PLAIN,
    ) -> None:
        self.config = configs[0]
        self.device = device
        self.step = 0
        self._spread = spread
        self._parts = self.config.conduct.parts_of(spread.own_examples(self.config.batch_sequences))
        self.subject = subject_of(configs, corpus, device)
        self.model = self.subject.model
        self.weights: Flat | Sharded
        if spread.world > 1 and spread.sharding == "zero3":
            self.weights, self.optimizers = shard(self.subject, self.config, spread.world)
        else:
            self.weights = Flat.of(self.subject)
            self.optimizers = build_optimizers(self.weights, self.subject, configs)
        static = self.subject.static
        self._compiled = acceleration.compiled and static
        if self._compiled:
            compile_step(self.subject)
        self._recorded = acceleration.recorded and static
        if self._recorded:
            make_recordable(self.optimizers)
        self._take = self._step_taker()
        averaged = self.config.evaluation.averager != "none"
        self._average = Average(self.config.evaluation, self._trained()) if averaged else None

    def advance(self, rate_factor: float) -> Tensor:
        """One optimizer step at `rate_factor` of the peak rates; the training loss of each copy, (c,).

        Where a training is spread over processes, the loss is that of this process's part of the batch.
        """
        set_rates(self.optimizers, rate_factor)
        losses = self._take(self._spread.own_part(self.subject, self.batch()))
        self._passed()
        return losses

    def _step_taker(self) -> Callable[[Batch], Tensor]:
        return RecordedStep(self._taken) if self._recorded else self._taken

    def _taken(self, batch: Batch) -> Tensor:
        """Everything of a step that happens on the device, at the rates that are set."""
        self.weights.zero_gradients()
        losses = torch.zeros(self.subject.copies, device=self.device)
        for part in self.subject.parts(batch, self._parts):
            losses += self.backward(part, share=1 / self._parts)
        self.weights.average_gradients(self._spread)
        self._apply()
        return losses

    @property
    def flat(self) -> Flat:
        """Weights and gradients side by side, as measurements want them: those are not spread over devices."""
        assert isinstance(self.weights, Flat), "weights in shards cannot be measured"
        return self.weights

    def batch(self) -> Batch:
        """The training batch of this step, on the device."""
        return self.subject.batch(self.step)

    def backward(self, part: Batch, *, share: float) -> Tensor:
        """Adds the gradient of `share` times the part's mean loss; returns that loss of each copy, (c,)."""
        losses = share * self.losses(part).mean(dim=1)
        # Copies share no weights, so the gradient of the sum is each copy's own.
        losses.sum().backward()
        return losses.detach()

    def update(self, rate_factor: float) -> None:
        """Ends a step whose gradients have been added up by `backward`."""
        set_rates(self.optimizers, rate_factor)
        self._apply()
        self._passed()

    def _apply(self) -> None:
        """Clips the gradients, and steps the optimizers."""
        if self.config.grad_clip:
            self.weights.clip_gradients(self.config.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()

    def _passed(self) -> None:
        self.subject.after_step()
        self.step += 1
        if self._average is not None:
            self._average.note(self._trained(), self.step)

    def losses(self, batch: Batch) -> Tensor:
        """The loss of every example, (c, b), in the run's number format."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            return self.subject.losses(batch)

    def _trained(self) -> dict[str, Tensor]:
        """The weights by name."""
        return {name: value.detach() for name, value in self.model.named_parameters()}

    def evaluate(self, *, averaged: bool = True) -> list[HeldOutLoss]:
        """The held-out loss of every copy: of the average where the configuration wants one, else of the weights."""
        if self._average is None or not averaged:
            return self._evaluate()
        present = {name: value.clone() for name, value in self._trained().items()}
        self._set_trained(self._average.read(present, self.step))
        losses = self._evaluate()
        self._set_trained(present)
        return losses

    @torch.no_grad()
    def _set_trained(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(values[name])

    @torch.no_grad()
    def _evaluate(self) -> list[HeldOutLoss]:
        self.model.eval()
        # Other shapes than those of training would each be compiled anew.
        with torch.compiler.set_stance("force_eager") if self._compiled else nullcontext():
            losses = torch.cat([self.losses(part) for part in self.subject.held_out()], dim=1).double()
        self.model.train()
        return [HeldOutLoss.of(copy, self.subject.strata()) for copy in losses.cpu()]

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, copied."""
        return {
            "step": self.step,
            "weights": {name: value.clone() for name, value in self.model.state_dict().items()},
            "average": None if self._average is None else self._average.state(),
            "optimizers": [copy.deepcopy(optimizer.state_dict()) for optimizer in self.optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state of this trainer, or of one of the same shape: the rates stay its own."""
        self.step = state["step"]
        self.model.load_state_dict(state["weights"])
        if self._average is not None:
            self._average.restore(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            restore_optimizer(optimizer, saved)
        self._take = self._step_taker()  # what was recorded knows the moments that were
