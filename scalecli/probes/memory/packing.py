"""Saved tensors packed for backward: compressed, or moved off the device; shapes and bytes, no values."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

Size = tuple[int, ...]
_copies: dict[int, weakref.ref[torch.UntypedStorage]] = {}
"""Storages of copies of weights in another type."""


def copied(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in that type; a copy is no activation."""
    copy = weight.to(dtype)
    if copy is not weight:
        storage = copy.untyped_storage()
        _copies[storage._cdata] = weakref.ref(storage)
    return copy


@dataclass(eq=False)
class Packed:
    """What is kept of a storage on the device, which may be nothing."""

    here: Tensor | None
    bytes: int


@dataclass(frozen=True)
class Saved:
    """A packed tensor: a view of its storage."""

    packed: Packed
    dtype: torch.dtype
    device: torch.device
    size: Size
    stride: Size
    offset: int


class Packing:
    """Packs what autograd saves to a share of its bytes, every storage once; weights and their copies stay."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.kept: set[int] = set()
        self.packed: dict[int, tuple[weakref.ref[torch.UntypedStorage], weakref.ref[Packed]]] = {}

    @contextmanager
    def saving(self, weights: Iterable[Tensor]) -> Iterator[None]:
        """While a layer with these weights runs."""
        self.kept = {weight.untyped_storage()._cdata for weight in weights}
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            yield

    def _pack(self, tensor: Tensor) -> Tensor | Saved:
        storage = tensor.untyped_storage()
        known = _copies.get(storage._cdata)
        if storage._cdata in self.kept or (known is not None and known() is storage):
            return tensor
        offset = int(tensor.storage_offset())
        packed, size = self._once(storage, tensor), tuple(tensor.shape)
        return Saved(packed, tensor.dtype, tensor.device, size, tensor.stride(), offset)

    def _once(self, storage: torch.UntypedStorage, tensor: Tensor) -> Packed:
        if storage._cdata in self.packed:
            of, found = self.packed[storage._cdata]
            packed = found()
            if of() is storage and packed is not None:
                return packed
        size = storage.nbytes()
        left = ceil(size * self.share)
        made = Packed(tensor.new_empty(left, dtype=torch.uint8) if left else None, size)
        self.packed[storage._cdata] = weakref.ref(storage), weakref.ref(made)
        return made

    def _unpack(self, saved: Tensor | Saved) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        values = saved.packed.bytes // saved.dtype.itemsize
        whole = torch.empty(values, dtype=saved.dtype, device=saved.device)
        return whole.as_strided(saved.size, saved.stride, saved.offset)
