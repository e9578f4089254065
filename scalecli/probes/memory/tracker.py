"""Counts the bytes that are alive while PyTorch code runs, on any device, the meta device included.

Every storage that an operation hands out is counted once, from its creation until nothing refers to it. This is what
a caching allocator calls *allocated* bytes; context, workspaces, rounding and fragmentation are not in it.
"""

from __future__ import annotations

import weakref
from typing import Any, Self, cast

import torch
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves


class MemoryTracker(TorchDispatchMode):
    """Live bytes and their peak in each moment of a step.

    >>> with MemoryTracker() as tracker:
    ...     x = torch.empty(1024, device="meta")
    ...     y = x * 2
    ...     del y
    >>> tracker.live, tracker.peak
    (4096, 8192)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.moment = "start"
        self.peaks: dict[str, int] = {}
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._sizes: dict[int, int] = {}
        self._resize = torch.UntypedStorage.resize_

    @property
    def peak(self) -> int:
        """Most bytes alive at once in any moment."""
        return max(self.peaks.values(), default=0)

    def enter(self, moment: str) -> None:
        """Count peaks under this name from now on."""
        self.moment = moment
        self._note_peak()

    def watch(self, *tensors: torch.Tensor) -> None:
        """Count tensors that were made before tracking began, such as parameters."""
        for tensor in tensors:
            self._register(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._register(leaf)
        return result

    def __enter__(self) -> Self:
        # Fully sharded data parallel frees and refills storages in place; no operation is dispatched for that.
        tracker, resize = self, self._resize

        def counted(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
            resize(storage, size)
            tracker._count(storage)
            return storage

        torch.UntypedStorage.resize_ = counted  # type: ignore[method-assign, assignment]
        return cast(Self, super().__enter__())  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _register(self, tensor: torch.Tensor) -> None:
        if is_traceable_wrapper_subclass(tensor):
            inner, _ = tensor.__tensor_flatten__()
            for part in (getattr(tensor, name) for name in inner):
                if isinstance(part, torch.Tensor):
                    self._register(part)
            return
        storage = tensor.untyped_storage()
        if storage._cdata not in self._alive:
            self._count(storage)

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Count a storage at its present size until nothing refers to it."""
        key, size = storage._cdata, storage.nbytes()

        def forget(_: object) -> None:
            del self._alive[key]
            self.live -= self._sizes.pop(key)

        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, forget)
        self.live += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self._note_peak()

    def _note_peak(self) -> None:
        self.peaks[self.moment] = max(self.peaks.get(self.moment, 0), self.live)
