"""A small corpus with structure to learn, and configurations that train on it in a second."""

from __future__ import annotations

import numpy as np
import pytest

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import Corpus
from scalecli.probes.config import Evaluation, ProbeConfig
from scalecli.probes.schedule import Schedule

VOCAB = 16


def markov_tokens(count: int, seed: int) -> np.ndarray:
    """Tokens of a first-order chain: a model that learns it gets far below guessing."""
    chain = np.random.default_rng(0)
    favourite = chain.permutation(VOCAB)
    rng = np.random.default_rng(seed)
    tokens = np.empty(count, dtype=np.uint8)
    tokens[0] = 0
    surprise, noise = rng.random(count) < 0.2, rng.integers(0, VOCAB, count)
    for i in range(1, count):
        tokens[i] = noise[i] if surprise[i] else favourite[tokens[i - 1]]
    return tokens


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return Corpus(
        train=markov_tokens(60_000, 1),
        validation=markov_tokens(6_000, 2),
        vocab=VOCAB,
        bytes_per_token=1.0,
        sha256="0" * 64,
        name="markov",
    )


@pytest.fixture(scope="session")
def config(corpus: Corpus) -> ProbeConfig:
    return ProbeConfig(
        shape=ModelShape(layers=2, width=16, ffn=32, heads=2, kv_heads=2, vocab=VOCAB),
        data=corpus.name,
        data_sha256=corpus.sha256,
        sequence_length=16,
        batch_sequences=8,
        steps=60,
        learning_rate=1e-2,
        schedule=Schedule(warmup_steps=5),
        evaluation=Evaluation(sequences=32),
    )
