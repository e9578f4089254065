"""One training step on one device: the highest point of forward, loss, backward and optimizer step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from scalecli.accounting.memory.decoder import Decoder
from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.offload import offloaded_layers
from scalecli.accounting.memory.parameters import layer_parameters, outer_parameters
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Moment, Recipe
from scalecli.accounting.memory.resident import Resident
from scalecli.accounting.memory.sharding import Sharder
from scalecli.accounting.memory.tape import GRADIENTS, Buffer, Bytes, Tape

ENDS = 2
"""Layers at either end of a run of equal ones that are gone through. From one to the next everything changes by the
same amounts, so that the highest point is at an end; the inner of the two shows the amounts."""
WAITING = "waiting micro-batches"


@dataclass(frozen=True, slots=True)
class Passed:
    """A layer that forward has gone through, or `skipped` ones that it has counted together."""

    nodes: int
    """Nodes that were there before it."""
    skipped: int = 0


def step_peaks(
    rank: Rank, recipe: Recipe, layout: Layout, in_flight: Fraction
) -> tuple[dict[Moment, Bytes], int]:
    """Bytes of every term at the highest point of each moment, and those that one forward keeps for its backward.

    Where no more micro-batches follow than are in flight at once, the first one to be taken backward finds no gradients
    but all the others waiting, and the second one gradients and one waiting less.
    """
    if recipe.accumulation > in_flight:
        cases = [(in_flight, True)]
    else:
        cases = [(in_flight, False), *([(in_flight - 1, True)] if in_flight > 1 else [])]
    steps = [Step(rank, recipe, layout, alive, earlier=earlier) for alive, earlier in cases]
    found = [step.peaks() for step in steps]
    highest = found[0] | {
        moment: max((peaks[moment] for peaks in found), key=lambda terms: sum(terms.values()))
        for moment in found[0]
        if moment != "forward"  # all forwards have begun before the second backward
    }
    return highest, steps[0].saved_bytes


class Step:
    """Forward and backward of one micro-batch, and the optimizer step."""

    def __init__(
        self, rank: Rank, recipe: Recipe, layout: Layout, in_flight: Fraction, *, earlier: bool
    ) -> None:
        """`in_flight` micro-batches are alive in forward or backward; `earlier` ones are done and have left
        gradients."""
        self.rank, self.recipe, self.layout, self.in_flight = rank, recipe, layout, in_flight
        self.resident = Resident(rank, recipe, layout)
        held = earlier or self.resident.keeps_gradients
        self.tape = Tape(
            self.resident.bytes | {GRADIENTS: self.resident.gradients if held else 0},
            accumulating=held,
            collects=layout.shards_at("zero2") or layout.offloads("optimizer"),
        )
        self.sharder = Sharder(self.tape, recipe, layout)
        self.decoder = Decoder(self.tape, rank, computed(recipe, layout), layout)
        embedding, top = outer_parameters(rank, recipe)
        self.outer, self.layer = (*embedding, *top), layer_parameters(rank, recipe)
        self.passed: list[Passed] = []
        self.norm_nodes = self.head_nodes = 0
        """Nodes before the final norm, and before the head; as many as there are in all where there is no head."""
        self.saved_bytes = 0
        """Kept by forward for backward: activations and weight copies of one micro-batch, loss included."""

    def peaks(self) -> dict[Moment, Bytes]:
        """Bytes of every term at the highest point of each moment."""
        self._backward(self._forward())
        waiting = round((self.in_flight - 1) * self.saved_bytes)
        during = {moment: alive | {WAITING: waiting} for moment, alive in self.tape.peaks.items()}
        return {**during, "step": self.resident.step()}

    def _forward(self) -> Buffer:
        """The loss, or what this stage sends to the next one."""
        tape, before = self.tape, self.tape.total
        self.sharder.gather(self.outer)
        x = self.decoder.embed()
        for run in self._runs():
            x = self._run_forward(x, *run)
        self.norm_nodes = self.head_nodes = len(tape.nodes)
        if self.rank.last:
            x = self._loss(x)
        tape.drop(x)
        self.saved_bytes = tape.total - before
        return x

    def _loss(self, x: Buffer) -> Buffer:
        tape = self.tape
        hidden = self.decoder.norm(tape.also(x), "norm")
        tape.drop(x)
        self.head_nodes = len(tape.nodes)
        tape.enter("loss")
        loss = self.decoder.loss(tape.also(hidden))
        tape.drop(hidden)
        return loss

    def _runs(self) -> list[tuple[int, bool, bool]]:
        """Equal layers that follow one another: how many, whether recomputed, whether offloaded."""
        layers = self.rank.layers
        recomputed = self.recipe.recomputed_of(layers)
        offloaded = offloaded_layers(self.rank, self.layout)
        edges = sorted({0, recomputed, offloaded, layers})
        return [(end - begin, begin < recomputed, begin < offloaded) for begin, end in pairwise(edges)]

    def _run_forward(self, x: Buffer, layers: int, recomputed: bool, offloaded: bool) -> Buffer:
        skipped = max(0, layers - 2 * ENDS)
        before: Bytes = {}
        for i in range(layers - skipped):
            if i == ENDS and skipped:
                self.tape.repeat(before, skipped)
                self.passed.append(Passed(len(self.tape.nodes), skipped))
            before = self.tape.snapshot()
            self.passed.append(Passed(len(self.tape.nodes)))
            self.sharder.gather(self.layer)
            x = self.decoder.layer(x, recomputed=recomputed, offloaded=offloaded)
            self.sharder.release(self.layer)
        return x

    def _backward(self, result: Buffer) -> None:
        tape = self.tape
        gradient = tape.make(result.values, result.item)
        tape.gradients[result] = tape.also(gradient)
        self.sharder.prefetch(self.layer)
        tape.backward(self.head_nodes)
        tape.enter("backward")
        tape.backward(self.norm_nodes)
        before: Bytes = {}
        while self.passed:
            layer = self.passed.pop()
            if layer.skipped:
                tape.repeat(before, layer.skipped)
                continue
            before = tape.snapshot()
            self.sharder.arrive(self.layer)
            if self.passed:
                self.sharder.prefetch(self.layer)
            tape.backward(layer.nodes)
            self.sharder.finish(self.layer, "layer")
        tape.backward()
        self.sharder.finish(self.outer, "outer")
        self.sharder.close()
        tape.drop(gradient)


def computed(recipe: Recipe, layout: Layout) -> Recipe:
    """The recipe of what runs: fully sharded weights are gathered in the computed type; the stream is narrow then, and
    nothing is cast."""
    if layout.shards_at("zero3") and recipe.precision == "bf16-autocast":
        return replace(recipe, precision="bf16")
    return recipe
