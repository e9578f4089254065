"""What leaves the device when parts of the state are offloaded: where it lies, and what passes the link each step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from scalecli.accounting.memory import saved, weights
from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.parameters import Parameter, layer_parameters
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.memory.resident import Resident

# Buffers that DeepSpeed stages weights and optimizer states in on their way to a drive, each as large as the largest
# tensor (defaults of offload_param.buffer_count and offload_optimizer.buffer_count).
WEIGHT_BUFFERS = 5
OPTIMIZER_BUFFERS = 4


@dataclass(frozen=True, slots=True)
class Moved:
    """One part of the state of one device that lives elsewhere [bytes]."""

    part: str
    bytes: int
    traffic: int
    """Through the device's link in a step, both ways together."""
    drive_traffic: int
    """To and from drives in a step, where it lies there."""


def moved_parts(rank: Rank, recipe: Recipe, layout: Layout, in_flight: Fraction) -> tuple[Moved, ...]:
    """What is not on the device between uses.

    The optimizer steps where its states are: gradients go there, and weights come back unless they are streamed anyway.
    Streamed layers come twice for every micro-batch, activations go and come back.
    """
    state, found = Resident(rank, recipe, layout), []
    if layout.offloads("optimizer"):
        gradients = weights.gradient_bytes(rank, recipe, layout)
        back = state.whole["weights"] - (state.streamed_bytes if layout.offloads("weights") else 0)
        found += [
            _stepped("optimizer states", state.whole["optimizer states"], 0),
            _stepped("master weights", state.whole["master weights"], back),
            # Gradients stay in the host's memory until the step.
            Moved("gradients", gradients, recipe.accumulation * gradients, 0),
        ]
    if layout.offloads("weights"):
        traffic = 2 * recipe.accumulation * state.streamed_bytes
        found.append(Moved("weights", state.streamed_bytes, traffic, traffic))
    if layout.offloads("activations"):
        kept = _taken_away(rank, recipe, offloaded_layers(rank, layout))
        traffic = 2 * recipe.accumulation * kept
        found.append(Moved("saved activations", round(in_flight * kept), traffic, traffic))
    if layout.offload_to == "cpu":
        found = [replace(part, drive_traffic=0) for part in found]
    return tuple(part for part in found if part.bytes or part.traffic)


def _stepped(part: str, size: int, traffic: int) -> Moved:
    """What the optimizer reads and writes once a step, beside the host's memory."""
    return Moved(part, size, traffic, 2 * size)


def _taken_away(rank: Rank, recipe: Recipe, layers: int) -> int:
    """Of the saved tensors of the first layers: of the recomputed ones among them what they start from."""
    recomputed = min(layers, recipe.recomputed_of(rank.layers))
    taken = recomputed * saved.layer_offloaded(rank, recipe)
    if layers > recomputed:
        taken += (layers - recomputed) * saved.layer_offloaded(rank, _without_recomputing(recipe))
    return taken


def _without_recomputing(recipe: Recipe) -> Recipe:
    return replace(recipe, recompute="none", recompute_layers=None, sequence_chunks=1)


def offloaded_layers(rank: Rank, layout: Layout) -> int:
    """Layers whose saved tensors are offloaded."""
    if not layout.offloads("activations"):
        return 0
    return rank.layers if layout.offload_layers is None else min(rank.layers, layout.offload_layers)


def host_terms(rank: Rank, recipe: Recipe, layout: Layout, moved: Iterable[Moved]) -> dict[str, int]:
    """Bytes of host memory for one device: what lies there, or the buffers that it passes on its way to a drive, and
    what pinning them wastes."""
    found = {part.part: part.bytes for part in moved if part.bytes}
    if layout.offload_to == "nvme":
        found = {"staging buffers": _staging(rank, recipe, layout, found)} if found else {}
        pieces = list(found.values())
    else:
        pieces = _pinned(rank, recipe, layout, found)
    waste = sum(power_of_two(piece) - piece for piece in pieces)
    return found | ({"rounding of pinned memory": waste} if waste else {})


def power_of_two(size: int) -> int:
    """PyTorch's allocator of pinned memory rounds every block up to a power of two (pytorch issue 150517).

    >>> power_of_two(129), power_of_two(128), power_of_two(0)
    (256, 128, 0)
    """
    return 1 << (size - 1).bit_length() if size else 0


def _pinned(rank: Rank, recipe: Recipe, layout: Layout, found: dict[str, int]) -> list[int]:
    """Blocks that are pinned: every streamed weight and every gradient; states and activations are not."""
    blocks: list[int] = []
    layer = layer_parameters(rank, recipe)
    if "weights" in found:
        blocks += _blocks(layer, layout, recipe.weight_bytes, rank.layers)
    if "gradients" in found:
        blocks += _blocks([p for p in layer if p.trained], layout, recipe.gradient_bytes, rank.layers)
    return blocks


def _blocks(layer: Iterable[Parameter], layout: Layout, item: int, layers: int) -> list[int]:
    """One for every tensor of every layer."""
    sizes = [weights.sharded([p], lambda _: item, layout, "zero3") for p in layer]
    return sizes * layers


def _staging(rank: Rank, recipe: Recipe, layout: Layout, found: dict[str, int]) -> int:
    """Buffers of tensors on their way between device and drive."""
    layer = layer_parameters(rank, recipe)
    largest = max(_blocks(layer, layout, 1, 1))
    size = WEIGHT_BUFFERS * largest * recipe.weight_bytes if "weights" in found else 0
    if "optimizer states" in found:
        each = sum(recipe.moment_bytes) + (weights.MASTER_BYTES if recipe.master_weights else 0)
        size += OPTIMIZER_BUFFERS * largest * (each + recipe.gradient_bytes)
    if "saved activations" in found:
        recomputed = recipe.recomputed_of(rank.layers) >= offloaded_layers(rank, layout)
        alone = recipe if recomputed else _without_recomputing(recipe)
        size += 2 * saved.layer_kept(rank, alone)  # one layer's on its way out or back, and the next one's
    return size
