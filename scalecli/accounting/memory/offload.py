"""What stays on the device and what the host holds when parts of the state are offloaded."""

from __future__ import annotations

from scalecli.accounting.memory.layout import Offload

LAYERS_RESIDENT = 2  # the layer at work and the one on its way
STAGING_FRACTION = 0.1  # pinned staging buffers, relative to what lives on the host

_MOVED: dict[Offload, tuple[str, ...]] = {
    "none": (),
    "optimizer": ("optimizer states", "master weights"),
    "optimizer+weights": ("optimizer states", "master weights", "weights"),
    "activations": (),
}


def on_device(resident: dict[str, int], layer_weight_bytes: int, offload: Offload) -> dict[str, int]:
    """The same terms without what moved to the host; offloaded weights leave two layers behind."""
    left = {name: 0 if name in _MOVED[offload] else size for name, size in resident.items()}
    if offload == "optimizer+weights":
        left["weights"] = min(resident["weights"], LAYERS_RESIDENT * layer_weight_bytes)
    return left


def on_host(resident: dict[str, int], offload: Offload) -> int:
    """Host bytes: what moved, gradients on their way to a host optimizer, and pinned staging buffers."""
    if offload == "none":
        return 0
    names = ("saved activations",) if offload == "activations" else (*_MOVED[offload], "gradients")
    moved = sum(resident[name] for name in names)
    return round(moved * (1 + STAGING_FRACTION))


def kept_on_device(kept: int, layer_kept: int, offload: Offload) -> int:
    """Activations left on the device: two layers' worth when they are offloaded."""
    return min(kept, LAYERS_RESIDENT * layer_kept) if offload == "activations" else kept
