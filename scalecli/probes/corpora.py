"""The corpus that a training reads, read once a process."""

from __future__ import annotations

from functools import lru_cache

from scalecli.data.corpus import Corpus, load_corpus, outside_corpus
from scalecli.probes.config import ProbeConfig
from scalecli.probes.foreign import ForeignShape, brings_its_data


def corpus_of(config: ProbeConfig) -> Corpus:
    """Raises DataError when the text cannot be read; training checks that it is the right one."""
    model = config.shape.model if isinstance(config.shape, ForeignShape) else ""
    return corpus_for(model, config.data, config.tokenizer)


def corpus_for(model: str, data: str, tokenizer: str = "") -> Corpus:
    """The corpus at `data`; for a task of the user's a name alone, since it brings its own data."""
    return outside_corpus(model) if brings_its_data(model) else _load(data, tokenizer)


@lru_cache(maxsize=1)
def _load(spec: str, tokenizer: str) -> Corpus:
    return load_corpus(spec, tokenizer)
