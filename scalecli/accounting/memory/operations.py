"""The operations of a decoder: what each makes, what it keeps for backward, and which gradients it makes there.

One function an operation. Buffers that an operation reads are let go by it; a caller that reads one again passes
`tape.also(x)`. Sizes are numbers of values; e is the bytes of a computed value.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TypeVar

from scalecli.accounting.memory.tape import CASTS, LOSS, WORKING, Buffer, Read, Tape, Weight

FLOAT_BYTES = 4
STATISTIC_BYTES = FLOAT_BYTES  # norms and attention keep their statistics in float32
INDEX_BYTES = 8  # PyTorch's indices are int64
MASK_BYTES = 1
EIGHT_BIT = 1
Tensor = TypeVar("Tensor", Buffer, Weight)


def cast(tape: Tape, x: Tensor, item: int) -> Tensor | Buffer:
    """The same values in `item` bytes each, if they are not; backward casts the gradient back."""
    if x.item == item:
        return x
    return tape.run(x.values, item, (x,), term=CASTS if isinstance(x, Weight) else x.home)


def linear(
    tape: Tape,
    x: Buffer,
    weight: Read,
    values: int,
    *,
    bias: Sequence[Read] = (),
    parts: int = 1,
    term: str = WORKING,
) -> Buffer:
    """x Wᵀ: keeps x for the gradient of the weights, and the weights for that of x.

    Of `parts` parts of the sequence, this device keeps its own and gathers the others for the product, and again in
    backward, where the gradient of the whole is scattered (Korthikanti et al., 2205.05198, section 4.2.2).
    """
    keeps = [*([weight] if x.needs else []), *([x] if weight.needs else [])]
    whole = parts * x.bytes if parts > 1 else 0
    return tape.run(
        values, x.item, (*bias, weight, x), keeps=keeps, kept_after=parts > 1, product=True, term=term,
        scratch=whole, scratch_backward=whole * (int(x.needs) + int(weight.needs)),
    )  # fmt: skip


def linear_quantised(
    tape: Tape, x: Buffer, weight: Weight, values: int, *, bias: Sequence[Read] = (), term: str = WORKING
) -> Buffer:
    """x Wᵀ of a quantised frozen weight, which is dequantised for the product and again in backward."""
    whole = weight.values * x.item
    keeps = (weight,) if x.needs else ()
    return tape.run(
        values, x.item, (*bias, weight, x), keeps=keeps, kept_after=True, product=True, term=term, scratch=whole,
        scratch_backward=whole,
    )  # fmt: skip


def linear_sampled(
    tape: Tape, x: Buffer, weight: Read, values: int, rows: int, share: float, *, bias: Sequence[Read] = ()
) -> Buffer:
    """x Wᵀ that keeps a sample of the rows of x, which estimates the gradient of the weights, and their indices."""
    kept = ceil(rows * share)
    chosen = tape.make(kept * (x.values // rows), x.item), tape.make(kept, INDEX_BYTES)
    return tape.run(
        values, x.item, (*bias, weight, x, *chosen), keeps=(*([weight] if x.needs else []), *chosen),
        kept_after=True, product=True, scratch_backward=kept * (values // rows) * x.item,
    )  # fmt: skip


def linear_eight_bit(
    tape: Tape,
    x: Buffer,
    weight: Weight,
    values: int,
    *,
    bias: Sequence[Read] = (),
    parts: int = 1,
) -> Buffer:
    """x Wᵀ of operands in one byte a value, which are kept instead of x; so is the gradient that backward reads."""
    narrow = tape.make(x.values, EIGHT_BIT), tape.make(weight.values, EIGHT_BIT, CASTS)
    keeps = [*([narrow[1]] if x.needs else []), *([narrow[0]] if weight.needs else [])]
    gathered = parts * x.values if parts > 1 else 0
    back = values * EIGHT_BIT + (parts * x.bytes if parts > 1 and x.needs else 0)
    return tape.run(
        values, x.item, (*bias, weight, x, *narrow), keeps=keeps, kept_after=True, product=True, scratch=gathered,
        scratch_backward=back + (gathered if weight.needs else 0),
    )  # fmt: skip


def resize(tape: Tape, x: Buffer, values: int) -> Buffer:
    """What a collective makes of x: all parts of a sequence, one part of a sum, rows of others; backward undoes it."""
    return tape.run(values, x.item, (x,))


def norm(tape: Tape, x: Buffer, weights: tuple[Weight, ...], *, rows: int) -> Buffer:
    """As one kernel: keeps x and a reciprocal deviation of every row [4 bytes], and the mean too if there is a bias."""
    return tape.run(
        x.values, x.item, (x, *weights), keeps=(x,), statistics=rows * STATISTIC_BYTES * len(weights)
    )


def decomposed_norm(tape: Tape, x: Buffer, weight: Weight, *, rows: int) -> Buffer:
    """An RMS norm by elementary operations in float32: keeps x and x over its deviation, both widened."""
    item, wide = x.item, cast(tape, x, FLOAT_BYTES)
    squares = tape.run(
        wide.values, FLOAT_BYTES, (tape.also(wide),), keeps=(wide,), scratch_backward=2 * wide.bytes
    )
    means = tape.run(rows, FLOAT_BYTES, (tape.also(squares),))
    deviations = tape.run(
        rows, FLOAT_BYTES, (means,), keeps_result=True, scratch_backward=2 * rows * FLOAT_BYTES
    )
    tape.drop(squares)
    normal = multiply(tape, tape.also(wide), tape.also(deviations))
    result = cast(tape, scale(tape, normal, weight), item)
    tape.drop(wide)
    tape.drop(deviations)
    return result


def multiply(tape: Tape, a: Buffer, b: Buffer) -> Buffer:
    """a · b, element by element: keeps both. One of them may be a column, whose gradient is a sum over rows."""
    keeps = [*([b] if a.needs else []), *([a] if b.needs else [])]
    summed = a.bytes if a.values > b.values and b.needs else 0
    return tape.run(a.values, a.item, (a, b), keeps=keeps, sums=summed > 0, scratch_backward=summed)


def scale(tape: Tape, x: Buffer, factors: Read) -> Buffer:
    """x times a factor for every column: keeps x, if the factors are trained; their gradient is a sum over rows."""
    keeps = [*([factors] if x.needs else []), *([x] if factors.needs else [])]
    narrower = factors.values * x.item if factors.item < x.item else 0  # the sum is cast
    summed = x.bytes + narrower if factors.needs else 0
    return tape.run(x.values, x.item, (x, factors), keeps=keeps, scratch_backward=summed)


def add(tape: Tape, x: Buffer, y: Buffer) -> Buffer:
    """x + y in the type of x; the gradient of both is that of the sum, cast for y if its type is another."""
    return tape.run(x.values, x.item, (x, y), passes=True)


def activate(tape: Tape, x: Buffer) -> Buffer:
    """SiLU or GELU: keeps x."""
    return tape.run(x.values, x.item, (x,), keeps=(x,))


def dropout(tape: Tape, x: Buffer) -> Buffer:
    """Keeps a mask of one byte a value."""
    return tape.run(x.values, x.item, (x,), statistics=x.values * MASK_BYTES)


def join(tape: Tape, *parts: Buffer) -> Buffer:
    """Parts side by side as a new tensor, whose gradient they have views of."""
    return tape.run(sum(part.values for part in parts), parts[0].item, parts, passes=True)


def attend(tape: Tape, packed: Buffer, values: int, *, rows: int, keys: int = 0) -> Buffer:
    """Flash attention over packed queries, keys and values: keeps them, its result, and a log-sum-exp of every row.

    In a ring of context-parallel ranks `keys` values of keys and values come in while others are read, beside a partial
    result, and in backward their gradients travel with them.
    """
    e = packed.item
    return tape.run(
        values, e, (packed,), keeps=(packed,), statistics=rows * STATISTIC_BYTES, keeps_result=True, product=True,
        scratch=(keys + values) * e if keys else 0, scratch_backward=(3 * keys + values) * e if keys else 0,
    )  # fmt: skip


def attend_stored(tape: Tape, packed: Buffer, values: int, *, scores: int, dropped: bool) -> Buffer:
    """Attention whose scores are tensors: keeps their softmax, and with dropout a mask and what it leaves; backward
    has two gradients of that size (Korthikanti et al., 2205.05198, section 4.1: 5 a s² b)."""
    size = scores * packed.item
    kept = size + (scores * MASK_BYTES + size if dropped else 0)
    return tape.run(
        values,
        packed.item,
        (packed,),
        keeps=(packed,),
        statistics=kept,
        scratch=size,
        scratch_backward=2 * size,
    )


def softmax(tape: Tape, x: Buffer, *, term: str = WORKING) -> Buffer:
    """Keeps its result."""
    return tape.run(x.values, x.item, (x,), keeps_result=True, term=term)


def choose(tape: Tape, chances: Buffer, choices: Buffer) -> Buffer:
    """The largest of a router's chances: keeps which these are."""
    tape.also(choices)
    return tape.run(
        choices.values, chances.item, (chances, choices), keeps=(choices,), kept_after=True,
        scratch_backward=chances.bytes,
    )  # fmt: skip


def gather_rows(tape: Tape, x: Buffer, indices: Buffer, values: int) -> Buffer:
    """Rows of x by index: keeps the indices; backward adds into zeros."""
    tape.also(indices)
    return tape.run(values, x.item, (x, indices), keeps=(indices,), scratch_backward=x.bytes)


def scatter_rows(tape: Tape, rows: Buffer, indices: Buffer, values: int) -> Buffer:
    """Rows added to those of a tensor of zeros by index: keeps both (PyTorch keeps the rows for their shape)."""
    tape.also(indices)
    return tape.run(values, rows.item, (rows, indices), keeps=(rows, indices), scratch=values * rows.item)


def cross_entropy(tape: Tape, logits: Buffer) -> Buffer:
    """Float32 logits, their log-softmax, which is kept, and the loss; backward makes gradients of both."""
    chances = softmax(tape, cast(tape, logits, FLOAT_BYTES), term=LOSS)
    return tape.run(1, FLOAT_BYTES, (chances,), keeps=(chances,), term=LOSS)


def contrast(tape: Tape, embedded: Buffer, size: int) -> Buffer:
    """A contrastive loss over embedded pairs, with `size` bytes of similarities and their gradients at its highest."""
    return tape.run(
        1, FLOAT_BYTES, (embedded,), keeps=(embedded,), scratch=size, scratch_backward=size, term=LOSS
    )
