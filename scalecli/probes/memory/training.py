"""What is traced or measured: a model, its loss and its optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.pipeline import in_flight
from scalecli.accounting.memory.rank import Rank, rank_of
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError, ProbeError
from scalecli.probes.foreign import ForeignShape
from scalecli.probes.memory.decoder import TracedDecoder, weight_type
from scalecli.probes.memory.optimizers import STORED_TYPES, make_optimizers
from scalecli.probes.subjects.own import mapped
from scalecli.probes.task import build_task

OnHidden = Callable[[Tensor], None]


@dataclass(frozen=True, slots=True)
class Training:
    """One model in training. `forward` returns the loss, or what a pipeline stage sends on; it hands the tensor that
    the head reads to its argument, if it knows which that is."""

    forward: Callable[[OnHidden], Tensor]
    optimizers: tuple[torch.optim.Optimizer, ...]
    accumulation: int = 1
    in_flight: int = 1
    """Micro-batches that forward is ahead of backward by, at most."""
    has_batch_norm: bool = False
    """Some layer takes statistics over the micro-batch."""


Build = Callable[[], Training]


def decoder_training(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout | None = None,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
    stage: int = 0,
) -> Training:
    """What one device has of the decoder of a shape, with all of a recipe, on the default device."""
    layout = layout or Layout()
    _check_traceable(layout)
    rank = rank_of(
        shape, recipe, layout, micro_batch_sequences=micro_batch_sequences, sequence_length=sequence_length,
        stage=stage,
    )  # fmt: skip
    with _default_type(weight_type(recipe)):
        model = TracedDecoder(rank, recipe, layout)
    if recipe.sums_gradients:
        _sum_gradients(model, STORED_TYPES[recipe.gradient_bytes])
    size = micro_batch_sequences, sequence_length // layout.cp
    targets = torch.zeros(size, dtype=torch.int64)
    tokens = torch.zeros_like(targets)

    def forward(on_hidden: OnHidden) -> Tensor:
        result: Tensor = model(tokens if rank.first else _received(rank, recipe, size), targets, on_hidden)
        return result

    return Training(
        forward,
        make_optimizers(model, recipe),
        recipe.accumulation,
        ceil(in_flight(layout, recipe.accumulation, stage)),
    )


def _check_traceable(layout: Layout) -> None:
    """Raise PlanError for what only the closed forms know."""
    for wished, what in (
        (
            layout.offloads("optimizer") or layout.offloads("weights"),
            "optimizer and weights in the host's memory",
        ),
        (layout.virtual_stages > 1, "several model chunks of a rank"),
        (layout.shards_at("zero1"), "sharded states"),
    ):
        if wished:
            raise PlanError(f"{what} are only counted, not traced", hint="scalecli memory")


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    """Of new weights, which never take the bytes of a wider type first."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _sum_gradients(model: nn.Module, dtype: torch.dtype) -> None:
    """Every gradient is added to a buffer of that type as soon as it is made, and let go."""

    def added(parameter: Tensor) -> None:
        parameter.grad = None

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.summed = torch.empty_like(parameter, dtype=dtype)  # type: ignore[attr-defined]
            parameter.register_post_accumulate_grad_hook(added)


def _received(rank: Rank, recipe: Recipe, size: tuple[int, int]) -> Tensor:
    """The stream that another stage has sent."""
    sequences, length = size
    shape = sequences, length // rank.sequence_parts, rank.width
    return torch.empty(shape, dtype=weight_type(recipe), requires_grad=True)


def foreign_training(
    shape: ForeignShape, recipe: Recipe, *, micro_batch_sequences: int, sequence_length: int
) -> Training:
    """A model of `transformers` or of the user's on the meta device. The recipe's optimizer trains it, in the recipe's
    type of weights; kernels are the model's own.

    Raises ProbeError where it cannot be built there, or its experts have no products in that type.
    """
    if shape.from_transformers:
        from scalecli.probes.subjects.causal_lm import build, meta_loss

        if shape.num_experts > 1 and recipe.precision != "bf16":
            raise ProbeError(
                "grouped products of experts are traced in bfloat16 only", hint="use --precision bf16"
            )
        model = build(shape.content, sequence_length).to(weight_type(recipe))
        tokens = torch.zeros(1, micro_batch_sequences, sequence_length + 1, dtype=torch.int64)
        return Training(
            lambda _: meta_loss(model, tokens), make_optimizers(model, recipe), recipe.accumulation
        )
    task = build_task(shape.model, width=shape.width, depth=shape.layers, seed=0)
    with torch.device("cpu"):
        examples = next(iter(task.batches("train", micro_batch_sequences, 0)))
    batch = mapped(examples, lambda tensor: _as_weights(tensor, recipe).to("meta"))
    model = task.model.to(weight_type(recipe))
    return Training(
        lambda _: task.losses(model, batch).mean(),
        make_optimizers(model, recipe),
        recipe.accumulation,
        has_batch_norm=any(isinstance(module, _BatchNorm) for module in model.modules()),
    )


def _as_weights(tensor: Tensor, recipe: Recipe) -> Tensor:
    tensor = tensor.detach()
    return tensor.to(weight_type(recipe)) if tensor.is_floating_point() else tensor
