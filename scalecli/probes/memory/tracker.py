"""Counts the bytes that are alive while PyTorch code runs, on any device, the meta device included.

Every storage that an operation hands out is counted once, from its creation until nothing refers to it. This is what
a caching allocator calls *allocated* bytes; context, workspaces, rounding and fragmentation are not in it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
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
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

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

    def _register(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()

        def forget(_: object, key: int = key, size: int = size) -> None:
            del self._seen[key]
            self.live -= size

        self._seen[key] = weakref.ref(storage, forget)
        self.live += size
        self._note_peak()

    def _note_peak(self) -> None:
        self.peaks[self.moment] = max(self.peaks.get(self.moment, 0), self.live)
