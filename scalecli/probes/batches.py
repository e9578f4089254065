"""Training batches and the held-out set, cut from arrays of tokens.

The batch of a step depends on seed and step alone, so a run can be resumed, branched, or stacked with others
and sees the same data. Sequences do not overlap and are drawn without replacement; each epoch has its own
order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scalecli.errors import DataError

Tokens = npt.NDArray[Any]
CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**26}
"""Upper size of the batches prepared at once: small where they only have to be cut, and on a GPU large enough to make
moves rare, beside models that are larger still.
"""


class Batches:
    """Batches (b, t + 1) of one run's data; the last position is only a target."""

    def __init__(
        self, tokens: Tokens, *, sequence_length: int, batch_sequences: int, seed: int, device: torch.device
    ) -> None:
        self._sequences = cut(tokens, sequence_length, what="training set")
        self._batch = batch_sequences
        self._seed = seed
        self._device = device
        step_bytes = 8 * batch_sequences * (sequence_length + 1)
        self._steps_in_chunk = max(1, CHUNK_BYTES[device.type] // step_bytes)
        self._chunk: tuple[int, Tensor] | None = None
        self._order_of = lru_cache(maxsize=2)(self._order)

    def at(self, step: int) -> Tensor:
        """The batch of a step, on the device."""
        number, within = divmod(step, self._steps_in_chunk)
        if self._chunk is None or self._chunk[0] != number:
            self._chunk = (number, self._load(number * self._steps_in_chunk))
        return self._chunk[1][within]

    def _load(self, first_step: int) -> Tensor:
        """(steps in a chunk, b, t + 1), as 64-bit ids."""
        count = self._sequences.shape[0]
        first = first_step * self._batch
        positions = np.arange(first, first + self._steps_in_chunk * self._batch)
        epochs, within = np.divmod(positions, count)
        rows = np.concatenate(
            [self._order_of(int(epoch))[within[epochs == epoch]] for epoch in np.unique(epochs)]
        )
        chunk = torch.from_numpy(self._sequences[rows].astype(np.int64))
        if self._device.type == "cuda":  # from pinned memory nobody waits for the move
            chunk = chunk.pin_memory()
        return chunk.to(self._device, non_blocking=True).view(self._steps_in_chunk, self._batch, -1)

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch]).permutation(self._sequences.shape[0])


def held_out_sequences(tokens: Tokens, *, sequence_length: int, sequences: int) -> Tensor:
    """The fixed evaluation set (s, t + 1): evenly spaced over the validation tokens, the same for every
    seed.
    """
    available = cut(tokens, sequence_length, what="validation set")
    if len(available) < sequences:
        raise DataError(
            f"the validation set has {len(available)} sequences of {sequence_length} tokens, not {sequences}",
            hint="use a larger corpus, shorter sequences, or fewer evaluation sequences",
        )
    rows = np.linspace(0, len(available) - 1, sequences).round().astype(np.int64)
    return torch.from_numpy(available[rows].astype(np.int64))


def epoch_tokens(tokens: Tokens, sequence_length: int) -> int:
    """Tokens that one epoch trains on: the whole sequences among them."""
    return (len(tokens) - 1) // sequence_length * sequence_length


def cut(tokens: Tokens, sequence_length: int, *, what: str) -> Tokens:
    """A view (sequences, t + 1) without copying: neighbours share the token that ends one and begins the
    next.
    """
    count = (len(tokens) - 1) // sequence_length
    if count < 1:
        raise DataError(
            f"the {what} has {len(tokens)} tokens, too few for one sequence of {sequence_length}",
            hint="use a larger corpus or a shorter sequence length",
        )
    stride = tokens.strides[0]
    return np.lib.stride_tricks.as_strided(
        tokens, (count, sequence_length + 1), (sequence_length * stride, stride), writeable=False
    )
