"""A training step in bytes: which tensors are alive while PyTorch runs forward and backward.

The program of a step (`decoder.py`) calls operations (`operations.py`) on buffers, which have a size but no values. The
tape counts what is alive under the name of each term, and follows the rules of PyTorch's autograd (2.13):

- an operation whose result needs a gradient leaves a node, which keeps what its backward reads;
- backward runs the nodes in the reverse order of their making; the gradients of a node are made together, then what it
  kept and the gradient that it read are let go;
- a tensor that is read more than once sums its gradients, and the sum is a new tensor;
- the gradients of a weight are summed first, then stored, or added in place to those of earlier micro-batches;
- a recomputed part of the model keeps its input; its operations run again when backward reaches it, up to the last one
  that keeps anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import ceil

from scalecli.accounting.memory.recipe import Moment

Bytes = dict[str, int]
"""Bytes by the name of their term."""

WORKING = "working tensors"
SAVED = "saved activations"
GRADIENTS = "gradients"
LOSS = "logits and loss"
CASTS = "weight copies"


class Weight:
    """A tensor of the model. Its bytes are counted elsewhere, those of its gradient here."""

    __slots__ = ("awaited", "item", "needs", "quantised", "unit", "values")

    def __init__(self, values: int, item: int, *, trained: bool, unit: str, quantised: bool = False) -> None:
        self.values, self.item, self.needs, self.quantised = values, item, trained, quantised
        self.unit = unit
        """What its gradient is reduced together with."""
        self.awaited = 0
        """Reads in forward whose gradients have not come yet."""


class Buffer:
    """A tensor of the step, alive while anything holds it. A view has no bytes of its own and holds its base."""

    __slots__ = (
        "base", "bytes", "holders", "home", "item", "keepers", "needs", "packed", "size", "term", "unpacks", "values",
    )  # fmt: skip

    def __init__(self, values: int, item: int, term: str, base: Buffer | None = None) -> None:
        self.values, self.item, self.base = values, item, base
        self.term = self.home = term
        self.bytes = values * item
        self.size = 0 if base else self.bytes
        """Bytes that it adds to what is alive."""
        self.holders = 1
        self.keepers = 0
        """Nodes that keep it for backward."""
        self.needs = False
        """Whether its gradient is needed."""
        self.packed: Buffer | None = None
        """What is kept in its place, where saved tensors are packed."""
        self.unpacks = 0
        """Bytes that backward makes of it again, if this is what is kept in another's place."""


Read = Buffer | Weight
Body = Callable[[Buffer], Buffer]
Piece = Callable[[], tuple[Buffer, Buffer]]
"""Makes a piece of a tensor, and what a part of the model makes of it."""


class Node:
    """What backward has to do for one operation."""

    __slots__ = ("again", "kept", "packs", "passes", "reads", "results", "scratch", "sums")

    def __init__(
        self,
        results: Sequence[Buffer],
        reads: Sequence[Read],
        kept: list[Buffer],
        *,
        passes: bool = False,
        scratch: int = 0,
    ) -> None:
        self.results, self.reads, self.kept = results, reads, kept
        self.packs = bool(kept)
        """Backward reads something that forward made or read, weights among it."""
        self.passes = passes
        """Its reads have the result's gradient, or a view of it, for theirs."""
        self.scratch = scratch
        """Bytes that backward needs for a moment."""
        self.sums = False
        """The gradient of the last thing it reads is a sum over rows, which is taken when all else is done."""
        self.again = False
        """It is of the second run of a recomputed part, whose tensors are let go as soon as they have been read."""

    def run(self, tape: Tape) -> None:
        """Gradients of what needs one; then everything that backward read is let go."""
        incoming = [tape.gradients.pop(result) for result in self.results if result in tape.gradients]
        made: list[tuple[Read, Buffer]] = []
        if incoming:
            passing = [tape.make(kept.unpacks, 1) for kept in self.kept if kept.unpacks]
            made = self._gradients(tape, self.reads[:-1] if self.sums else self.reads, incoming[0])
            passing.append(tape.make(self.scratch, 1, _gradient_term(self.results[0])))
            if self.again:
                self._let_go(tape)
            made += self._gradients(tape, self.reads[-1:] if self.sums else (), incoming[0])
            for buffer in (*incoming, *passing):
                tape.drop(buffer)
        self._let_go(tape)
        for read, gradient in made:
            tape.deliver(read, gradient)

    def _let_go(self, tape: Tape) -> None:
        while self.kept:
            tape.let_go(self.kept.pop())

    def _gradients(self, tape: Tape, reads: Sequence[Read], incoming: Buffer) -> list[tuple[Read, Buffer]]:
        return [(read, self._gradient(tape, read, incoming)) for read in reads if read.needs]

    def _gradient(self, tape: Tape, read: Read, incoming: Buffer) -> Buffer:
        if isinstance(read, Weight):
            return tape.make(read.values, read.item, GRADIENTS)
        if self.passes and read.item == incoming.item:
            return tape.also(incoming)
        return tape.make(read.values, read.item, _gradient_term(read))


def _gradient_term(buffer: Buffer) -> str:
    """What the gradient of a tensor counts as."""
    return LOSS if buffer.home == LOSS else WORKING


class Recomputed(Node):
    """A part of the model whose operations run again in backward."""

    __slots__ = ("body", "made", "products", "reached", "selective", "trailing")

    def __init__(self, body: Body, source: Buffer, *, selective: bool) -> None:
        super().__init__((), (source,), [])
        self.body = body
        self.selective = selective
        """Results of matrix products and attention are kept instead of computed again."""
        self.products: deque[Buffer] = deque()
        self.made: list[Buffer] = []
        """What each operation of the first run made."""
        self.reached = 0
        """Operations of the first run up to the last one that keeps anything: no others run again. That one does not
        either, if it keeps only what it reads."""
        self.trailing: list[Node] = []
        """Nodes after those, which need nothing that is computed again."""

    def note(self, result: Buffer, trails: Node | None, *, keeps: bool, short: bool) -> None:
        """One more operation of the first run."""
        self.made.append(result)
        if keeps:
            self.trailing.clear()
            self.reached = len(self.made) - (1 if short else 0)
        elif trails is not None:
            self.trailing.append(trails)

    def run(self, tape: Tape) -> None:
        """Backward of what comes last, the operations once more, and backward through these."""
        (source,) = self.reads
        assert isinstance(source, Buffer)
        while self.trailing:
            self.trailing.pop().run(tape)
        again = tape.unpacked(source)
        outer, tape.nodes = tape.nodes, []
        made = tape.rerun(self, tape.also(again))
        tape.drop(again)
        for before, now in zip(self.made, made, strict=True):
            if before in tape.gradients:
                tape.gradients[now] = tape.gradients.pop(before)
        earliest = next((node for node in tape.nodes if node.packs), tape.nodes[0])
        earliest.kept += [*self.kept, *self.products]
        tape.backward()
        tape.nodes = outer
        if again is not source and again in tape.gradients:
            tape.deliver(source, tape.gradients.pop(again))


class Streamed(Node):
    """A part of the model that is recomputed and taken backward in pieces of the sequence (Luo et al., 2506.03077).

    `piece` runs it on one piece; all pieces read the keys and values of the whole sequence, of `shared` bytes.
    """

    __slots__ = ("piece", "shared")

    def __init__(self, source: Buffer, result: Buffer, kept: Buffer, piece: Piece, shared: int) -> None:
        super().__init__((result,), (source,), [kept])
        self.piece, self.shared = piece, shared

    def run(self, tape: Tape) -> None:
        """The first piece leaves gradients, to which those of the others are added: two stand for all."""
        (result,), (source,) = self.results, self.reads
        gradient, outer = tape.gradients.pop(result), tape.nodes
        held = [tape.make(source.values, source.item), *(tape.make(self.shared, 1) for _ in range(2))]
        held += [tape.make(kept.unpacks, 1) for kept in self.kept]
        for adding in (False, True):
            tape.nodes, tape.adding = [], adding
            x, y = self.piece()
            incoming = tape.make(y.values, y.item)
            tape.gradients[y] = tape.also(incoming)
            tape.drop(y)
            tape.backward()
            added = tape.make(self.shared, 1)
            for buffer in (added, x, incoming, tape.gradients.pop(x)):
                tape.drop(buffer)
        tape.nodes, tape.adding = outer, False
        for buffer in (gradient, *held[1:]):
            tape.drop(buffer)
        self._let_go(tape)
        if source.needs:
            tape.deliver(source, held[0])
        else:
            tape.drop(held[0])


class Tape:
    """Bytes alive in each term, their highest sum in each moment, and the nodes of the step so far."""

    def __init__(self, resident: Bytes, *, accumulating: bool, collects: bool) -> None:
        self.live = dict.fromkeys((WORKING, SAVED, GRADIENTS, LOSS, CASTS), 0) | resident
        self.total = sum(resident.values())
        self.peaks: dict[Moment, Bytes] = {}
        self.pack: float | None = None
        """Share of its bytes that a saved tensor leaves on the device; None keeps tensors as they are."""
        self.away = 0
        """Bytes of saved tensors that packing has taken off the device."""
        self.accumulating = accumulating
        """Gradients of earlier micro-batches are there, to which new ones are added."""
        self.adding = False
        """Gradients of the same micro-batch are there, to which new ones are added."""
        self.collects = collects
        """Gradients of weights are collected until their unit's are all there, and then leave."""
        self.collected: dict[str, list[Buffer]] = {}
        self.nodes: list[Node] = []
        self.gradients: dict[Read, Buffer] = {}
        self.first: Recomputed | None = None
        """The recomputed part whose first run this is: no nodes are made."""
        self.again: Recomputed | None = None
        """The recomputed part whose second run this is."""
        self.made: list[Buffer] = []
        """What the operations of the second run have made so far."""
        self._moment: Moment = "forward"
        self._highest = -1
        self._rising = True

    # What is alive

    def enter(self, moment: Moment) -> None:
        """Note peaks under this name from now on."""
        self._note()
        self._moment, self._highest, self._rising = moment, -1, True
        self._note()

    def add(self, term: str, size: int) -> None:
        """Bytes that come, or go if negative, without an operation."""
        if size > 0:
            self._rising = True
        elif self._rising:
            self._note()
        self.live[term] = self.live.get(term, 0) + size
        self.total += size

    def snapshot(self) -> Bytes:
        """What is alive now."""
        return dict(self.live)

    def repeat(self, before: Bytes, times: int) -> None:
        """What has changed since a snapshot changes so many times more, at once."""
        self._note()
        for term, size in self.live.items():
            change = times * (size - before.get(term, 0))
            self.live[term] = size + change
            self.total += change
        self._rising = True

    def _note(self) -> None:
        if self._rising and self.total > self._highest:
            self._highest = self.total
            self.peaks[self._moment] = dict(self.live)
        self._rising = False

    def make(self, values: int, item: int, term: str = WORKING) -> Buffer:
        """A new tensor with one holder."""
        buffer = Buffer(values, item, term)
        self.add(term, buffer.size)
        return buffer

    def view(self, base: Buffer, values: int) -> Buffer:
        """A part of another tensor, as a tensor."""
        view = Buffer(values, base.item, base.term, self.also(base))
        view.needs = base.needs
        return view

    def also(self, buffer: Buffer) -> Buffer:
        """The same tensor with one more holder."""
        if buffer.base is not None and not buffer.holders:
            self.also(buffer.base)
        buffer.holders += 1
        return buffer

    def drop(self, buffer: Buffer) -> None:
        """One holder less."""
        buffer.holders -= 1
        if buffer.holders == 0:
            self.add(buffer.term, -buffer.size)
            if buffer.base is not None:
                self.drop(buffer.base)

    # What backward will read

    def keep(self, buffer: Buffer) -> Buffer:
        """What is kept of a tensor for backward: itself, or a packed copy."""
        buffer = buffer.base or buffer
        if self.pack is not None and self.again is None and buffer.home == WORKING:
            return self._packed(buffer, self.pack)
        return self._kept(buffer)

    def _kept(self, buffer: Buffer) -> Buffer:
        self.also(buffer)
        buffer.keepers += 1
        if buffer.keepers == 1 and buffer.home == WORKING:
            self._rename(buffer, SAVED)
        return buffer

    def _packed(self, buffer: Buffer, share: float) -> Buffer:
        if buffer.packed is not None and buffer.packed.holders:
            return self.also(buffer.packed)
        buffer.packed = self.make(ceil(buffer.size * share), 1, SAVED)
        buffer.packed.unpacks = buffer.size
        self.away += buffer.size - buffer.packed.size
        return buffer.packed

    def unpacked(self, buffer: Buffer) -> Buffer:
        """A kept tensor as the operations of backward read it."""
        if buffer.packed is None:
            return self.also(buffer)
        again = self.make(buffer.values, buffer.item)
        again.needs = buffer.needs
        return again

    def let_go(self, kept: Buffer) -> None:
        """Backward is done with it."""
        if kept.keepers:
            kept.keepers -= 1
            if kept.keepers == 0 and kept.home == WORKING:
                self._rename(kept, WORKING)
        self.drop(kept)

    def _rename(self, buffer: Buffer, term: str) -> None:
        self.live[buffer.term] -= buffer.size
        self.live[term] += buffer.size
        buffer.term = term

    # Forward

    def run(
        self,
        values: int,
        item: int,
        reads: Sequence[Read],
        *,
        keeps: Sequence[Read] = (),
        statistics: int = 0,
        keeps_result: bool = False,
        kept_after: bool = False,
        sums: bool = False,
        passes: bool = False,
        product: bool = False,
        term: str = WORKING,
        scratch: int = 0,
        scratch_backward: int = 0,
    ) -> Buffer:
        """One operation: it makes a tensor of `values` values of `item` bytes, and lets go the buffers that it reads.

        Backward needs `keeps` of what it reads, `statistics` bytes beside its result, and the result itself if
        `keeps_result`. `scratch` are bytes needed while it runs. A `product` is not computed again by selective
        recomputation.
        """
        needs = any(read.needs for read in reads)
        keeping = needs and bool(keeps or statistics or keeps_result)
        made = self._results(values, item, statistics, term, product=product)
        self.drop(self.make(scratch if made or keeping else 0, 1, term))
        result = made[0] if made else self._skipped(values, item, term)
        result.needs = needs
        node = Node((result,), reads, [], passes=passes, scratch=scratch_backward) if needs else None
        if self.first is not None:
            self.first.note(result, node, keeps=keeping, short=not (statistics or keeps_result or kept_after))
            if product and self.first.selective:
                self.first.products += [self._kept(buffer) for buffer in made]
        elif node is not None:
            node.packs, node.sums, node.again = keeping, sums, self.again is not None
            node.kept = [self.keep(read) for read in keeps if isinstance(read, Buffer)]
            node.kept += [self.keep(buffer) for buffer in (made if keeps_result else made[1:])]
            self.nodes.append(node)
        if self.again is not None:
            self.made.append(result)
        for buffer in made[1:]:
            self.drop(buffer)
        for read in reads:
            if isinstance(read, Buffer):
                self.drop(read)
            elif needs and self.again is None:
                read.awaited += 1
        return result

    def split(self, source: Buffer, *sizes: int) -> tuple[Buffer, ...]:
        """Views of a tensor, whose gradients are put together into one new tensor."""
        views = tuple(self.view(source, values) for values in sizes)
        if source.needs and self.first is None:
            self.nodes.append(Node(views, (source,), []))
        self.drop(source)
        return views

    def recompute(self, body: Body, source: Buffer, *, selective: bool = False) -> Buffer:
        """`body` of a tensor, of which only the input is kept (and, if `selective`, the products inside)."""
        part = Recomputed(body, source, selective=selective)
        part.kept.append(self.keep(source))
        self.first = part
        result = body(self.also(source))
        self.first = None
        if result.needs:
            part.results = (result,)
            self.nodes.append(part)
        else:
            self.let_go(part.kept[0])
        self.drop(source)
        return result

    def sum(self, parts: Sequence[Buffer]) -> Buffer:
        """The sum of single numbers."""
        return self.run(1, 4, parts, passes=True)

    def stream(
        self, piece: Piece, unseen: Piece, source: Buffer, values: int, item: int, shared: int
    ) -> Buffer:
        """What `piece` makes of all pieces of a tensor, of which only the whole is kept; `unseen` is the same without
        weights that wait for gradients."""
        kept = self.keep(source)
        result, held = self.make(values, item), self.make(shared, 1)
        result.needs = True
        self.first = Recomputed(lambda x: x, source, selective=False)
        for buffer in unseen():
            self.drop(buffer)
        self.first = None
        self.drop(held)
        self.nodes.append(Streamed(source, result, kept, piece, shared))
        self.drop(source)
        return result

    def rerun(self, part: Recomputed, source: Buffer) -> list[Buffer]:
        """Run a recomputed part again, now with nodes; what its operations make."""
        self.again, self.made = part, []
        self.drop(part.body(source))
        self.again = None
        return self.made

    def _results(self, values: int, item: int, statistics: int, term: str, *, product: bool) -> list[Buffer]:
        """What an operation makes: the result and statistics. Nothing in a second run that needs no more of it."""
        part = self.again
        if part is not None and len(self.made) >= part.reached:
            return []
        if part is not None and part.selective and product:
            return [self._kept_product(part) for _ in range(2 if statistics else 1)]
        return [self.make(values, item, term), *([self.make(statistics, 1)] if statistics else [])]

    def _kept_product(self, part: Recomputed) -> Buffer:
        kept = self.also(part.products.popleft())
        self.let_go(kept)
        return kept

    def _skipped(self, values: int, item: int, term: str) -> Buffer:
        """Stands for a result that is not computed again."""
        result = Buffer(values, item, term)
        result.size = 0
        return result

    # Backward

    def backward(self, mark: int = 0) -> None:
        """Run the nodes that were made after the first `mark`, the latest first."""
        while len(self.nodes) > mark:
            self.nodes.pop().run(self)

    def deliver(self, read: Read, gradient: Buffer) -> None:
        """A gradient reaches its tensor; a weight's is stored once all that read the weight have sent theirs."""
        waiting = self.gradients.pop(read, None)
        if waiting is not None:
            total = self.make(gradient.values, gradient.item, gradient.term)
            self.drop(waiting)
            self.drop(gradient)
            gradient = total
        if isinstance(read, Weight):
            read.awaited -= 1
            if not read.awaited:
                self._store(read, gradient)
                return
        self.gradients[read] = gradient

    def _store(self, weight: Weight, gradient: Buffer) -> None:
        """The gradient of a weight is complete."""
        if self.adding:
            self.drop(gradient)
        elif self.collects:
            self.collected.setdefault(weight.unit, []).append(gradient)
        elif self.accumulating:
            self.drop(gradient)
