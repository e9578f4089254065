"""A corpus survives the trip to a machine that cannot read its text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scalecli.data.corpus import Corpus, Domain, outside_corpus
from scalecli.data.corpus_file import read_corpus, write_corpus

TEXT = Corpus(
    name="mixture",
    train=np.arange(70_000, dtype=np.uint32),
    validation=np.arange(9_000, dtype=np.uint32),
    vocab=70_000,
    bytes_per_token=4.2,
    sha256="a" * 64,
    tokenizer="bpe:70000",
    domains=(Domain("code", 0.25, 20_000, 4_000), Domain("prose", 0.75, 50_000, 5_000)),
)


@pytest.mark.parametrize(
    "corpus", [TEXT, replace(TEXT, domains=()), outside_corpus("package.module:factory")]
)
def test_what_is_written_is_read(corpus: Corpus, tmp_path: Path) -> None:
    file = tmp_path / "corpus.npz"
    write_corpus(corpus, file)
    found = read_corpus(file)
    nothing = np.zeros(0)
    assert replace(found, train=nothing, validation=nothing) == replace(
        corpus, train=nothing, validation=nothing
    )
    for side in ("train", "validation"):
        np.testing.assert_array_equal(getattr(found, side), getattr(corpus, side))
        assert getattr(found, side).dtype == getattr(corpus, side).dtype
