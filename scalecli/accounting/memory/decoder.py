"""One device's part of the decoder as a program of operations; `probes/memory/decoder.py` is the same in PyTorch.

Functions let go the buffers that they are given, as functions let go their arguments when they return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from scalecli.accounting.memory import operations as op
from scalecli.accounting.memory.contrastive import contrastive_bytes
from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.parameters import Parameter, layer_parameters, outer_parameters
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.memory.tape import LOSS, WORKING, Buffer, Node, Read, Tape, Weight

Branch = Callable[[Buffer], Buffer]


class Decoder:
    """Embedding, layers, final norm, head and loss of one device."""

    def __init__(self, tape: Tape, rank: Rank, recipe: Recipe, layout: Layout) -> None:
        self.tape, self.rank, self.recipe, self.layout = tape, rank, recipe, layout
        self.parameters = layer_parameters(rank, recipe)
        embedding, top = outer_parameters(rank, recipe)
        self.outer = self._weights((*embedding, *top), "outer")
        if rank.shares_head:
            self.outer["head"] = self.outer["embedding"]
        self.weights = self.outer
        """Those of the layer at work, and the outer ones."""

    def _weights(self, found: Iterable[Parameter], unit: str) -> dict[str, Weight]:
        item = self.recipe.weight_bytes
        return {
            p.name: Weight(p.values, item, trained=p.trained, unit=unit, quantised=p.quantised) for p in found
        }

    def embed(self) -> Buffer:
        """The stream that the first layer here reads: embedded tokens, or what another stage has sent."""
        tape, rank, item = self.tape, self.rank, self.recipe.stream_bytes
        if rank.first:
            return self._part(tape.run(rank.tokens * rank.width, item, (self.outer["embedding"],)))
        received = tape.make(rank.stream_tokens * rank.width, item)
        received.needs = True
        tape.nodes.append(Node((), (), [tape.keep(received)]))  # autograd holds on to where it ends
        return received

    def layer(self, x: Buffer, *, recomputed: bool, offloaded: bool) -> Buffer:
        """One more layer, whose saved tensors are offloaded or compressed as wished."""
        tape, recipe = self.tape, self.recipe
        body = partial(self._layer, weights=self._weights(self.parameters, "layer"))
        tape.pack = (
            0.0 if offloaded else 1 / recipe.saved_compression if recipe.saved_compression > 1 else None
        )
        if recomputed and recipe.sequence_chunks > 1:
            y = self._streamed(x)
        elif recomputed:
            y = tape.recompute(body, x, selective=recipe.recompute == "selective")
        else:
            y = body(tape.also(x))
            tape.drop(x)
        tape.pack = None
        return y

    def _streamed(self, x: Buffer) -> Buffer:
        """A layer in pieces of the sequence."""
        tape, rank, recipe = self.tape, self.rank, self.recipe
        stream = -(-rank.stream_tokens // recipe.sequence_chunks)
        size = replace(rank, stream_tokens=stream, tokens=stream * rank.sequence_parts)
        inner = Decoder(tape, size, recipe, self.layout)

        def piece(weights: dict[str, Weight]) -> tuple[Buffer, Buffer]:
            part = tape.make(stream * rank.width, recipe.stream_bytes)
            part.needs = True
            return part, inner._layer(tape.also(part), weights)

        trained, unseen = (self._weights(self.parameters, "layer") for _ in range(2))
        keys = rank.tokens * (rank.packed - rank.mixed) * recipe.compute_bytes
        return tape.stream(partial(piece, trained), partial(piece, unseen), x, x.values, x.item, keys)

    def _layer(self, x: Buffer, weights: dict[str, Weight]) -> Buffer:
        self.weights = self.outer | weights
        x = self._branch(x, "attention", self._attention)
        return self._branch(x, "ffn", self._experts if self.rank.routed > 1 else self._feed_forward)

    def _branch(self, x: Buffer, name: str, branch: Branch) -> Buffer:
        """x + dropout(scale(branch(norm(x))))."""
        tape = self.tape
        y = self._part(branch(self.norm(tape.also(x), f"{name}_norm")))
        if self.recipe.trained.branch_scales:
            y = op.scale(tape, y, op.cast(tape, self.weights[f"{name}_scale"], y.item))
        if self.recipe.dropout:
            y = op.dropout(tape, y)
        return op.add(tape, x, y)

    def norm(self, x: Buffer, name: str, rows: int | None = None) -> Buffer:
        """Of the stream, or of `rows` rows."""
        rows = rows or self.rank.stream_tokens
        weight, bias = self.weights[name], self.weights.get(f"{name}.bias")
        if bias is not None:
            return op.norm(self.tape, x, (weight, bias), rows=rows)
        if self.recipe.norm == "decomposed":
            return op.decomposed_norm(self.tape, x, weight, rows=rows)
        return op.norm(self.tape, x, (weight,), rows=rows)

    def _part(self, y: Buffer) -> Buffer:
        """This device's part of the sequence, of the sum over tensor-parallel ranks."""
        parts = self.rank.sequence_parts
        return y if parts == 1 else op.resize(self.tape, y, y.values // parts)

    def _project(self, x: Buffer, name: str, outputs: int, *, gathers: bool = False) -> Buffer:
        """A matrix product with the branch of an adapter and a bias, as far as there are any."""
        tape, parts = self.tape, self.rank.sequence_parts if gathers else 1
        x = op.cast(tape, x, self.recipe.compute_bytes)
        y = self._product(tape.also(x), name, outputs, self.rank.tokens, parts)
        down = self.weights.get(f"{name}.adapter_down")
        if down is not None:
            r = self.recipe.lora_rank
            middle = self._plain(tape.also(x), down, r * self.rank.tokens, parts)
            up = self.weights[f"{name}.adapter_up"]
            y = op.add(tape, y, self._plain(middle, up, outputs * self.rank.tokens))
        tape.drop(x)
        return y

    def _product(self, x: Buffer, name: str, outputs: int, rows: int, parts: int = 1) -> Buffer:
        """Inside a layer: with a quantised weight, operands in eight bits or sampled rows, as the recipe says."""
        tape, recipe, weight = self.tape, self.recipe, self.weights[name]
        bias = self._bias(name)
        if weight.quantised:
            return op.linear_quantised(tape, x, weight, outputs * rows, bias=bias)
        if recipe.formats.operand == op.EIGHT_BIT:
            return op.linear_eight_bit(tape, x, weight, outputs * rows, bias=bias, parts=parts)
        if recipe.sampled_rows < 1 and weight.needs:
            copy = op.cast(tape, weight, recipe.compute_bytes)
            return op.linear_sampled(tape, x, copy, outputs * rows, rows, recipe.sampled_rows, bias=bias)
        return self._plain(x, weight, outputs * rows, parts, bias=bias)

    def _plain(
        self,
        x: Buffer,
        weight: Weight,
        values: int,
        parts: int = 1,
        *,
        bias: Sequence[Read] = (),
        term: str = WORKING,
    ) -> Buffer:
        copy = op.cast(self.tape, weight, self.recipe.compute_bytes)
        return op.linear(self.tape, x, copy, values, bias=bias, parts=parts, term=term)

    def _bias(self, name: str) -> tuple[Read, ...]:
        bias = self.weights.get(f"{name}.bias")
        return () if bias is None else (op.cast(self.tape, bias, self.recipe.compute_bytes),)

    def _attention(self, h: Buffer) -> Buffer:
        tape, rank = self.tape, self.rank
        packed = self._project(tape.also(h), "packed", rank.packed, gathers=True)
        if rank.qk_norm:
            packed = self._norm_heads(packed)
        if "key_value_scale" in self.weights:
            packed = self._scale_keys(packed)
        out = self._attend(tape.also(packed))
        y = self._project(tape.also(out), "out", rank.width)
        for local in (out, packed, h):
            tape.drop(local)
        return y

    def _attend(self, packed: Buffer) -> Buffer:
        tape, rank, values = self.tape, self.rank, self.rank.tokens * self.rank.mixed
        if self.recipe.attention == "stored":
            scores = rank.tokens * rank.heads * rank.attended
            return op.attend_stored(tape, packed, values, scores=scores, dropped=self.recipe.dropout > 0)
        keys = rank.tokens * (rank.packed - rank.mixed) if self.layout.cp > 1 else 0
        return op.attend(tape, packed, values, rows=rank.tokens * rank.heads, keys=keys)

    def _scale_keys(self, packed: Buffer) -> Buffer:
        """Keys and values times the factors of IA³, beside the queries again."""
        tape, rank = self.tape, self.rank
        queries = rank.tokens * rank.mixed
        parts = tape.split(tape.also(packed), queries, packed.values - queries)
        factors = op.cast(tape, self.weights["key_value_scale"], packed.item)
        scaled = op.scale(tape, tape.also(parts[1]), factors)
        joined = op.join(tape, tape.also(parts[0]), scaled)
        for local in (*parts, packed):
            tape.drop(local)
        return joined

    def _norm_heads(self, packed: Buffer) -> Buffer:
        """Queries and keys normed head by head, and put beside the values again."""
        tape, rank = self.tape, self.rank
        keys = rank.tokens * rank.kv_heads * rank.head_dim
        parts = tape.split(tape.also(packed), rank.tokens * rank.mixed, keys, keys)
        queries = self.norm(tape.also(parts[0]), "query_norm", rank.tokens * rank.heads)
        normed = self.norm(tape.also(parts[1]), "key_norm", rank.tokens * rank.kv_heads)
        joined = op.join(tape, queries, normed, tape.also(parts[2]))
        for local in (*parts, packed):
            tape.drop(local)
        return joined

    def _feed_forward(self, h: Buffer) -> Buffer:
        tape, rank = self.tape, self.rank
        if rank.gated:
            gate = op.activate(tape, self._project(tape.also(h), "gate", rank.ffn, gathers=True))
            hidden = op.multiply(tape, gate, self._project(tape.also(h), "up", rank.ffn, gathers=True))
        else:
            hidden = op.activate(tape, self._project(tape.also(h), "up", rank.ffn, gathers=True))
        if "hidden_scale" in self.weights:
            hidden = op.scale(tape, hidden, op.cast(tape, self.weights["hidden_scale"], hidden.item))
        y = self._project(hidden, "down", rank.width)
        tape.drop(h)
        return y

    def _experts(self, h: Buffer) -> Buffer:
        """Routing, the experts' blocks, and their results weighted and added up; variables live to the end."""
        tape, rank, e = self.tape, self.rank, self.recipe.compute_bytes
        part = tape.also(h)
        if rank.sequence_parts > 1:  # the router reads the whole sequence
            h = op.resize(tape, h, h.values * rank.sequence_parts)
        x = op.cast(tape, tape.also(h), e)
        logits = self._plain(tape.also(x), self.weights["router"], rank.tokens * rank.routed)
        tape.drop(x)
        chances = op.softmax(tape, op.cast(tape, logits, op.FLOAT_BYTES))
        choices = tape.make(rank.visits, op.INDEX_BYTES)
        chosen = op.choose(tape, tape.also(chances), choices)
        taken = self._order()
        tokens = tape.make(rank.slots, op.INDEX_BYTES)
        visits = op.gather_rows(tape, op.cast(tape, tape.also(h), e), tokens, rank.slots * rank.width)
        blocks = self._visited(visits)
        shares = op.cast(tape, op.gather_rows(tape, tape.also(chosen), taken, rank.slots), e)
        results = op.multiply(tape, blocks, shares)
        mixed = op.scatter_rows(tape, tape.also(results), tokens, rank.tokens * rank.width)
        for local in (results, tokens, taken, chosen, choices, chances, h, part):
            tape.drop(local)
        return mixed

    def _order(self) -> Buffer:
        """Indices of the visits by expert; experts with more slots than visits are filled up."""
        tape, rank = self.tape, self.rank
        order = tape.make(rank.visits, op.INDEX_BYTES)
        tape.drop(tape.make(rank.visits, op.INDEX_BYTES))  # the sorted experts
        if rank.slots <= rank.visits:
            return order
        filled = tape.make(rank.slots, op.INDEX_BYTES)
        tape.drop(order)
        return filled

    def _visited(self, visits: Buffer) -> Buffer:
        """What the experts make of the visits, which are exchanged where experts are spread over devices."""
        tape = self.tape
        if self.layout.ep == 1:
            return self._blocks(visits)
        visits = op.resize(tape, visits, visits.values)
        results = op.resize(tape, self._blocks(tape.also(visits)), visits.values)
        tape.drop(visits)
        return results

    def _blocks(self, visits: Buffer) -> Buffer:
        tape, rank = self.tape, self.rank

        def product(x: Buffer, name: str, outputs: int) -> Buffer:
            return self._product(x, name, outputs, rank.slots)

        if rank.gated:
            gate = op.activate(tape, product(tape.also(visits), "gate", rank.ffn))
            inner = op.multiply(tape, gate, product(tape.also(visits), "up", rank.ffn))
        else:
            inner = op.activate(tape, product(tape.also(visits), "up", rank.ffn))
        y = product(inner, "down", rank.width)
        tape.drop(visits)
        return y

    def loss(self, hidden: Buffer) -> Buffer:
        """Head and cross-entropy, in pieces that are recomputed if chunked; or a contrast of pairs."""
        tape, recipe = self.tape, self.recipe
        self.weights = self.outer
        if recipe.contrastive_pairs is not None:
            size = contrastive_bytes(recipe.contrastive_pairs, tile=recipe.contrastive_tile)
            return op.contrast(tape, hidden, size)
        if recipe.logits == "full":
            return self._cross_entropy(hidden, self.rank.stream_tokens)
        pieces = tape.split(hidden, *(tokens * self.rank.width for tokens in self._pieces()))
        losses = [
            tape.recompute(partial(self._cross_entropy, tokens=tokens), piece)
            for piece, tokens in zip(pieces, self._pieces(), strict=True)
        ]
        return tape.sum(losses)

    def _cross_entropy(self, hidden: Buffer, tokens: int) -> Buffer:
        tape, parts = self.tape, self.rank.sequence_parts
        x, values = op.cast(tape, hidden, self.recipe.compute_bytes), tokens * parts * self.rank.vocab
        logits = self._plain(tape.also(x), self.outer["head"], values, parts, term=LOSS)
        tape.drop(x)
        return op.cross_entropy(tape, logits)

    def _pieces(self) -> list[int]:
        """Tokens of the stream in each piece of a chunked loss."""
        size = math.ceil(self.rank.stream_tokens / self.recipe.logit_chunks)
        whole, rest = divmod(self.rank.stream_tokens, size)
        return [size] * whole + [rest] * bool(rest)
