"""Documents of many lengths in batches of one length: how much of a batch is padding, and what packing saves.

The batch that counts for learning rate and noise is the one without padding: `effective_tokens`.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalecli.errors import DataError, PlanError

Lengths = NDArray[np.int64]

# So many documents tell a distribution; more only take time.
MOST_DOCUMENTS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to fill batches. Shares are of all tokens that are computed."""

    name: str
    sequences: int
    padding: float
    effective_tokens: float
    """Real tokens of a mean batch."""
    attention: float
    """Pairs of tokens that attention computes, relative to those within documents."""
    imbalance: float
    """Work of the busiest rank over the mean, attention counted: the others wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """The ways, and the documents they were made from."""

    documents: int
    mean_length: float
    longest: int
    split: int
    """Documents longer than a sequence, which are cut."""
    nominal_tokens: int
    ways: tuple[Way, ...]


def plan_packing(
    lengths: Sequence[int],
    *,
    sequence_length: int,
    batch_sequences: int,
    ranks: int = 1,
    attention_share: float = 0.1,
    seed: int = 0,
) -> Packing:
    """Padding of four ways to fill batches of `batch_sequences` sequences on `ranks` data-parallel ranks.

    `attention_share` is that of attention in the time of a full sequence. Raises DataError for lengths that are none,
    PlanError for batches that ranks cannot share.
    """
    documents: Lengths = np.asarray(lengths, dtype=np.int64)
    if documents.size == 0 or documents.min() < 1:
        raise DataError("lengths of documents are whole numbers of tokens, at least 1")
    if sequence_length < 1 or batch_sequences < 1 or batch_sequences % ranks:
        raise PlanError(
            f"a batch of {batch_sequences} sequences of {sequence_length} cannot be shared by {ranks} ranks",
            hint="use a batch that is a multiple of the ranks",
        )
    rng = np.random.default_rng(seed)
    if documents.size > MOST_DOCUMENTS:
        documents = rng.choice(documents, MOST_DOCUMENTS, replace=False)
    pieces = rng.permutation(_cut(documents, sequence_length))
    ordered = np.sort(pieces)
    shape = _Shape(sequence_length, batch_sequences, ranks, attention_share, pieces)
    return Packing(
        documents=int(documents.size),
        mean_length=float(documents.mean()),
        longest=int(documents.max()),
        split=int((documents > sequence_length).sum()),
        nominal_tokens=batch_sequences * sequence_length,
        ways=(
            shape.padded("padded to the sequence", pieces, whole=True),
            shape.padded("padded to the longest of a batch", pieces, whole=False),
            shape.padded("padded in buckets of like lengths", ordered, whole=False),
            shape.packed("packed", _best_fit(ordered[::-1], sequence_length), rng),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    sequence_length: int
    batch_sequences: int
    ranks: int
    attention_share: float
    pieces: Lengths

    def padded(self, name: str, pieces: Lengths, *, whole: bool) -> Way:
        """Batches in the order of the pieces, each padded to the sequence or to its own longest."""
        batches = [pieces[i : i + self.batch_sequences] for i in range(0, len(pieces), self.batch_sequences)]
        widths = [self.sequence_length if whole else int(batch.max()) for batch in batches]
        computed = sum(len(batch) * width for batch, width in zip(batches, widths, strict=True))
        pairs = sum(len(batch) * width**2 for batch, width in zip(batches, widths, strict=True))
        real = int(pieces.sum())
        return self._way(name, len(pieces), computed, pairs, real / self._batches(len(pieces)), imbalance=1.0)

    def packed(self, name: str, bins: list[list[int]], rng: np.random.Generator) -> Way:
        """Several documents a sequence, attention within each alone; ranks have equal tokens and unequal pairs."""
        work = np.array([self._work(held) for held in bins])
        usable = len(bins) - len(bins) % self.ranks
        spread = rng.permutation(work)[:usable].reshape(-1, self.ranks) if usable else work[:, None]
        per_rank = max(1, self.batch_sequences // self.ranks)
        steps = (
            spread[: len(spread) - len(spread) % per_rank].reshape(-1, per_rank, spread.shape[1]).sum(axis=1)
        )
        imbalance = float((steps.max(axis=1) / steps.mean(axis=1)).mean()) if steps.size else 1.0
        real, pairs = int(self.pieces.sum()), int((self.pieces**2).sum())
        effective = real / self._batches(len(bins))
        return self._way(name, len(bins), len(bins) * self.sequence_length, pairs, effective, imbalance)

    def _batches(self, sequences: int) -> float:
        return max(1.0, sequences / self.batch_sequences)

    def _work(self, held: list[int]) -> float:
        """Of one sequence, relative to a full one of a single document."""
        attention = sum(length**2 for length in held) / self.sequence_length**2
        return 1 - self.attention_share + self.attention_share * attention

    def _way(
        self, name: str, sequences: int, computed: int, pairs: int, effective: float, imbalance: float
    ) -> Way:
        return Way(
            name=name,
            sequences=sequences,
            padding=1 - int(self.pieces.sum()) / computed,
            effective_tokens=effective,
            attention=pairs / int((self.pieces**2).sum()),
            imbalance=imbalance,
        )


def _cut(documents: Lengths, sequence_length: int) -> Lengths:
    """Documents as pieces of at most one sequence."""
    whole, rest = np.divmod(documents, sequence_length)
    full = np.full(int(whole.sum()), sequence_length, dtype=np.int64)
    return np.concatenate([full, rest[rest > 0]])


def _best_fit(lengths: Lengths, room: int) -> list[list[int]]:
    """Bins of `room` tokens; each piece, longest first, goes where it leaves least.

    >>> _best_fit(np.array([5, 4, 4, 3, 2]), 9)
    [[5, 4], [4, 3, 2]]
    """
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []
    for length in map(int, lengths):
        at = bisect.bisect_left(free, (length, -1))
        if at == len(free):
            bins.append([length])
            bisect.insort(free, (room - length, len(bins) - 1))
            continue
        left, index = free.pop(at)
        bins[index].append(length)
        bisect.insort(free, (left - length, index))
    return bins
