"""The training step, for one model or for a stack of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scalecli.data.corpus import Corpus
from scalecli.errors import DataError, ProbeError
from scalecli.probes.batches import Batches, held_out
from scalecli.probes.config import ProbeConfig
from scalecli.probes.decoder import Decoder, Experts, initialise
from scalecli.probes.parametrization import Multipliers
from scalecli.probes.train.optimizers import allocate_gradients, build_optimizers, clip_gradients, set_rates

EVALUATION_TOKENS = 16_384
"""Tokens evaluated at once: the logits of a batch stay near 16 MiB for byte vocabularies."""


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """Mean loss over the held-out sequences and its standard error, both [nats/token]."""

    mean: float
    std_error: float


class Trainer:
    """Copies that share everything but seed, learning rate and weight decay, step by step.

    Raises:
        DataError: the corpus is too small for a sequence, or not the one the configuration names.
        ProbeError: the configurations cannot be stacked, or the micro-batch does not divide the batch.
    """

    def __init__(
        self,
        configs: Sequence[ProbeConfig],
        corpus: Corpus,
        *,
        device: torch.device,
        micro_batch_sequences: int | None = None,
    ) -> None:
        _check_corpus(configs[0], corpus)
        self.config = configs[0]
        self.device = device
        self.step = 0
        self._accumulation = _accumulation(self.config, micro_batch_sequences)
        multipliers = Multipliers.of(self.config.shape, self.config.parametrization, self.config.base_width)
        self.model = Decoder(
            self.config.shape, multipliers, length=self.config.sequence_length, copies=len(configs)
        )
        initialise(self.model, [config.seed for config in configs])
        self.model.to(device)
        self.gradients = allocate_gradients(self.model)
        self.optimizers = build_optimizers(self.model, configs)
        self._experts = [module for module in self.model.modules() if isinstance(module, Experts)]
        self._average = self._weights() if self.config.evaluation.average else {}
        self._batches = [_batches(config, corpus, device) for config in configs]
        self._held_out = held_out(
            corpus.validation,
            sequence_length=self.config.sequence_length,
            sequences=self.config.evaluation.sequences,
            device=device,
        )

    def advance(self, rate_factor: float) -> Tensor:
        """One optimizer step at `rate_factor` of the peak rates; the training loss of each copy, (c,)."""
        self.gradients.buffer.zero_()
        losses = torch.zeros(self.model.copies, device=self.device)
        for part in self.batch().chunk(self._accumulation, dim=1):
            losses += self.backward(part, share=1 / self._accumulation)
        self.update(rate_factor)
        return losses

    def batch(self) -> Tensor:
        """The training batch of this step, (c, b, t + 1)."""
        return torch.stack([batches.at(self.step) for batches in self._batches])

    def backward(self, part: Tensor, *, share: float) -> Tensor:
        """Adds the gradient of `share` times the part's mean loss; returns that loss of each copy, (c,)."""
        losses = share * self.sequence_losses(part).mean(dim=1)
        # Copies share no weights, so the gradient of the sum is each copy's own.
        losses.sum().backward()
        return losses.detach()

    def update(self, rate_factor: float) -> None:
        """Clips the gradients that have been added up, and steps the optimizers."""
        if self.config.grad_clip:
            clip_gradients(self.gradients, self.config.grad_clip)
        set_rates(self.optimizers, rate_factor)
        for optimizer in self.optimizers:
            optimizer.step()
        for experts in self._experts:
            experts.balance()
        self.step += 1
        if self._average:
            self._note_average()

    def sequence_losses(self, batch: Tensor) -> Tensor:
        """Mean cross-entropy of each sequence of (c, b, t + 1), as (c, b) [nats/token]."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            logits = self.model(batch[..., :-1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), batch[..., 1:].flatten(), reduction="none")
        return losses.view(*batch.shape[:2], -1).mean(dim=-1)

    @torch.no_grad()
    def _note_average(self) -> None:
        """Weighs step t by t^average: what came before keeps (1 - 1/t)^(average + 1)."""
        kept = (1 - 1 / self.step) ** (self.config.evaluation.average + 1)
        for name, parameter in self.model.named_parameters():
            self._average[name].lerp_(parameter, 1 - kept)

    def _weights(self) -> dict[str, Tensor]:
        """Copies of the weights, and of the biases that balance experts."""
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def evaluate(self) -> list[HeldOutLoss]:
        """The held-out loss of every copy: of its weights, or of their average where the configuration says so."""
        if not self._average:
            return self._evaluate()
        present = self._weights()
        self.model.load_state_dict(self._average)
        losses = self._evaluate()
        self.model.load_state_dict(present)
        return losses

    @torch.no_grad()
    def _evaluate(self) -> list[HeldOutLoss]:
        sequences = max(1, EVALUATION_TOKENS // (self.config.sequence_length * self.model.copies))
        parts = [
            self.sequence_losses(part.expand(self.model.copies, -1, -1))
            for part in self._held_out.split(sequences)
        ]
        losses = torch.cat(parts, dim=1).double()
        errors = losses.std(dim=1) / math.sqrt(losses.shape[1])
        return [
            HeldOutLoss(mean, error)
            for mean, error in zip(losses.mean(1).tolist(), errors.tolist(), strict=True)
        ]

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, copied."""
        optimizers = [copy.deepcopy(optimizer.state_dict()) for optimizer in self.optimizers]
        average = {name: value.clone() for name, value in self._average.items()}
        return {"step": self.step, "weights": self._weights(), "average": average, "optimizers": optimizers}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state of this trainer, or of one of the same shape: the rates stay its own."""
        self.step = state["step"]
        self.model.load_state_dict(state["weights"])
        self._average = {name: value.clone() for name, value in state["average"].items()}
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            own = {"param_groups": optimizer.state_dict()["param_groups"]}
            optimizer.load_state_dict(copy.deepcopy({**saved, **own}))


def _accumulation(config: ProbeConfig, micro_batch_sequences: int | None) -> int:
    """Parts a batch is computed in."""
    micro = micro_batch_sequences or config.batch_sequences
    if config.batch_sequences % micro:
        raise ProbeError(
            f"a batch of {config.batch_sequences} sequences cannot be cut into micro-batches of {micro}",
            hint="use a micro-batch that divides the batch",
        )
    return config.batch_sequences // micro


def _batches(config: ProbeConfig, corpus: Corpus, device: torch.device) -> Batches:
    return Batches(
        corpus.train[: config.unique_tokens],
        sequence_length=config.sequence_length,
        batch_sequences=config.batch_sequences,
        seed=config.seed,
        device=device,
    )


def _check_corpus(config: ProbeConfig, corpus: Corpus) -> None:
    if config.data_sha256 != corpus.sha256:
        raise DataError(
            f"the corpus {corpus.name} has SHA-256 {corpus.sha256[:8]}, the run wants {config.data_sha256[:8]}",
            hint="give the corpus the run was made for, or make the run anew",
        )
    if config.shape.vocab < corpus.vocab:
        raise DataError(
            f"the corpus has ids up to {corpus.vocab - 1}, the model a vocabulary of {config.shape.vocab}"
        )
