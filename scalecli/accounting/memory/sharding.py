"""What happens to weights and gradients around each unit of a sharded model: gathering, releasing, reducing.

Units are the layers, and embedding, final norm and head together, as PyTorch's FSDP2 is set up for decoders. A unit's
weights are gathered into a buffer and copied out of it; the buffer lives until the next unit is gathered. In backward
the next unit's buffer is filled while one computes, and gradients are reduced from a buffer that lives until those of
the next unit are reduced.
"""

from __future__ import annotations

from collections.abc import Sequence

from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.parameters import Parameter
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.memory.tape import GRADIENTS, Buffer, Tape
from scalecli.accounting.memory.weights import shard_values, whole_values

COMMUNICATION = "communication buffers"
GATHERED = "gathered weights"
Parameters = Sequence[Parameter]


class Sharder:
    """One device's part in gathering weights and reducing gradients; does nothing where the layout does neither."""

    def __init__(self, tape: Tape, recipe: Recipe, layout: Layout) -> None:
        self.tape, self.recipe, self.layout = tape, recipe, layout
        self.gathers = layout.shards_at("zero3")
        self.regathers = self.gathers and layout.reshard_after_forward
        self.buffer: list[Buffer] = []
        """What the latest unit was gathered into."""
        self.leaving: list[Buffer] = []
        """What the gradients of the latest unit are reduced from, or copied to the host from."""

    def gather(self, unit: Parameters) -> None:
        """Before a unit's forward."""
        if self.gathers:
            before, self.buffer = self.buffer, self._filled(unit)
            self._copy_out(unit, before)

    def release(self, unit: Parameters) -> None:
        """After a unit's forward."""
        if self.regathers:
            self.tape.add(GATHERED, -self._gathered(unit))

    def prefetch(self, unit: Parameters) -> None:
        """The buffer for the unit that backward needs next."""
        self._drop(self.buffer)
        self.buffer = self._filled(unit) if self.regathers else []

    def arrive(self, unit: Parameters) -> None:
        """Before a unit's backward: its weights are copied out of the buffer."""
        if self.regathers:
            before, self.buffer = self.buffer, []
            self._copy_out(unit, before)

    def finish(self, unit: Parameters, name: str) -> None:
        """After a unit's backward: its weights are released, and its gradients leave."""
        if self.gathers:
            self.tape.add(GATHERED, -self._gathered(unit))
        if self.tape.collects:
            self._drop(self.leaving)
            self.leaving = []
            whole = self.tape.collected.pop(name, [])
            if self.layout.shards_at("zero2"):
                self._reduce([parameter for parameter in unit if parameter.trained], whole)
            else:
                self.leaving = whole

    def close(self) -> None:
        """After backward no buffer is left."""
        self._drop(self.buffer)
        self._drop(self.leaving)

    def _filled(self, unit: Parameters) -> list[Buffer]:
        """The buffer that a unit is gathered into, from shards that are cast first if they are wider."""
        item = self.recipe.compute_bytes
        casts = self.recipe.weight_bytes != item
        cast = self.tape.make(shard_values(unit, self.layout) if casts else 0, item, COMMUNICATION)
        buffer = self.tape.make(self._gathered(unit), 1, COMMUNICATION)
        self.tape.drop(cast)
        return [buffer]

    def _copy_out(self, unit: Parameters, before: list[Buffer]) -> None:
        self.tape.add(GATHERED, self._gathered(unit))
        self._drop(before)

    def _gathered(self, unit: Parameters) -> int:
        return whole_values(unit, self.layout) * self.recipe.compute_bytes

    def _reduce(self, unit: Parameters, whole: list[Buffer]) -> None:
        """Whole gradients become one shard of them."""
        tape, item = self.tape, made_bytes(self.recipe, self.layout)
        self.leaving = [tape.make(whole_values(unit, self.layout), item, COMMUNICATION)]
        self._drop(whole)
        shard = shard_values(unit, self.layout)
        reduced = tape.make(shard, item, GRADIENTS)
        if item != self.recipe.gradient_bytes:
            stored = tape.make(shard, self.recipe.gradient_bytes, GRADIENTS)
            tape.drop(reduced)
            reduced = stored
        if tape.accumulating or self.layout.offloads("optimizer"):
            tape.drop(reduced)

    def _drop(self, buffers: list[Buffer]) -> None:
        for buffer in buffers:
            self.tape.drop(buffer)


def made_bytes(recipe: Recipe, layout: Layout) -> int:
    """Bytes of one value of a gradient as backward makes it: gathered weights are in the computed type."""
    return recipe.compute_bytes if layout.shards_at("zero3") else recipe.weight_bytes
