"""The corpus a configuration names, read once a process."""

from __future__ import annotations

from functools import lru_cache

from scalecli.data.corpus import Corpus, load_corpus
from scalecli.probes.config import ProbeConfig


def corpus_of(config: ProbeConfig) -> Corpus:
    """Raises DataError when the text cannot be read; training checks that it is the right one."""
    return _load(config.data)


@lru_cache(maxsize=1)
def _load(spec: str) -> Corpus:
    return load_corpus(spec)
