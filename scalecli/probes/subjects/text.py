"""What models of text share: batches and held-out sequences from a corpus, and the loss of the next token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scalecli.data.corpus import Corpus
from scalecli.errors import DataError
from scalecli.probes.batches import Batches, held_out_sequences
from scalecli.probes.config import ProbeConfig
from scalecli.probes.subjects.subject import Stratum

HOPELESS_NATS = 1.0
"""A training loss this far above that of guessing counts as diverged."""
EVALUATION_TOKENS = 16_384
"""Tokens evaluated at once: the logits of a batch stay near 16 MiB for byte vocabularies."""


class Text:
    """The sequences that copies train on, (c, b, t + 1), and those that all are evaluated on.

    Raises:
        DataError: the corpus is too small for a sequence, or not the one that the configurations name.
    """

    def __init__(self, configs: Sequence[ProbeConfig], corpus: Corpus, device: torch.device) -> None:
        _check(configs[0], corpus)
        self._config = configs[0]
        self._copies = len(configs)
        self._batches = [_batches(config, corpus, device) for config in configs]
        self._strata = strata_of(corpus, self._config.evaluation.sequences)
        self._held_out = _held_out(corpus, self._strata, self._config.sequence_length).to(device)
        self._token_losses = next_token_losses

    @property
    def guessing(self) -> float:
        """Every token as likely as any other [nats/token]."""
        return math.log(self._config.shape.vocab)

    @property
    def hopeless(self) -> float:
        return self.guessing + HOPELESS_NATS

    def compile(self) -> None:
        self._token_losses = torch.compile(next_token_losses, dynamic=False)

    def batch(self, step: int) -> Tensor:
        return torch.stack([batches.at(step) for batches in self._batches])

    def parts(self, batch: Tensor, count: int) -> Sequence[Tensor]:
        return batch.chunk(count, dim=1)

    def held_out(self) -> Iterator[Tensor]:
        at_once = max(1, EVALUATION_TOKENS // (self._config.sequence_length * self._copies))
        return (part.expand(self._copies, -1, -1) for part in self._held_out.split(at_once))

    def strata(self) -> Sequence[Stratum]:
        return self._strata


def strata_of(corpus: Corpus, sequences: int) -> list[Stratum]:
    """As many held-out sequences of every domain, whatever its share: losses of each can be told as well."""
    if not corpus.domains:
        return [Stratum("", 1.0, sequences)]
    each = -(-sequences // len(corpus.domains))
    return [Stratum(domain.name, domain.share, each) for domain in corpus.domains]


def _held_out(corpus: Corpus, strata: Sequence[Stratum], sequence_length: int) -> Tensor:
    ends = np.cumsum([domain.validation_tokens for domain in corpus.domains][:-1])
    sides = np.split(corpus.validation, ends) if corpus.domains else [corpus.validation]
    return torch.cat(
        [
            held_out_sequences(side, sequence_length=sequence_length, sequences=stratum.examples)
            for side, stratum in zip(sides, strata, strict=True)
        ]
    )


def next_token_losses(logits: Tensor, sequences: Tensor) -> Tensor:
    """Mean cross-entropy of each sequence of (c, b, t + 1), as (c, b) [nats/token]; logits have one row a token."""
    losses = F.cross_entropy(logits.float(), sequences[..., 1:].flatten(), reduction="none")
    return losses.view(*sequences.shape[:2], -1).mean(dim=-1)


def _batches(config: ProbeConfig, corpus: Corpus, device: torch.device) -> Batches:
    return Batches(
        corpus.training(config.unique_tokens),
        sequence_length=config.sequence_length,
        batch_sequences=config.batch_sequences,
        seed=config.seed,
        device=device,
    )


def _check(config: ProbeConfig, corpus: Corpus) -> None:
    if config.data_sha256 != corpus.sha256:
        raise DataError(
            f"the corpus {corpus.name} has SHA-256 {corpus.sha256[:8]}, the run wants {config.data_sha256[:8]}",
            hint="give the corpus the run was made for, or make the run anew",
        )
    if config.shape.vocab < corpus.vocab:
        raise DataError(
            f"the corpus has ids up to {corpus.vocab - 1}, the model a vocabulary of {config.shape.vocab}"
        )
