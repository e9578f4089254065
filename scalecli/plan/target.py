"""What somebody wants to train, with the blanks filled in: shape, size, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from scalecli.accounting.flops import flops_6nd, training_flops_per_token
from scalecli.accounting.shape import ModelShape, shape_for_params, with_experts
from scalecli.data.catalogue import Workload
from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.plan.allocation import Allocation, tokens_of
from scalecli.plan.fits import count_of
from scalecli.plan.notes import Notes
from scalecli.plan.sizing import best_size, loss_law
from scalecli.plan.speed import Speed
from scalecli.plan.spending import SERVED_BYTES, Spending
from scalecli.units import format_bytes

ParamsKind = Literal["total", "non-embedding"]

# Charles et al. 2025 (2503.09799), section 3: inner steps between two synchronisations in every fit of its laws.
SYNC_STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user said: a size or a shape, or neither, and one way to say how long or what may be spent."""

    params: float | None = None
    params_kind: ParamsKind = "total"
    shape: ModelShape | None = None
    tokens: float | None = None
    flops: float | None = None
    days: float | None = None
    money: float | None = None
    loss: float | None = None
    tokens_per_param: float | None = None
    inference_tokens: float = 0.0
    """That the finished model will read and write: paid from what may be spent."""
    serve_bytes: float | None = None
    """What the finished model's weights may take."""
    experts: tuple[int, ...] = (1,)
    """Of every feed-forward block: their number, or those that the best one is chosen from."""
    experts_per_token: int = 1
    capacity_factor: float = 1.0
    """Slots that an expert has, relative to a perfectly balanced routing."""
    sequence_length: int = 2048
    vocab: int = 32000
    optimizer: str | None = None
    accelerator: str | None = None
    count: int = 1
    accelerators: Path | None = None
    replicas: int | None = None
    """Of DiLoCo, which trains so many apart; None for data-parallel training."""
    sync_every: int = SYNC_STEPS
    """Steps of DiLoCo's replicas between two synchronisations."""
    streams: bool = False
    """Whether they average in fragments, while they train."""
    workload: Workload = "language"
    """What is trained: published rules are those for it."""
    recipe: Mapping[str, str] = field(default_factory=dict)
    """How the target will be trained, for comparison with the runs: tokenizer, schedule, loss_kind, ..."""

    @property
    def spending(self) -> Spending | None:
        """What may be spent, or the loss that is wanted; None where the length was said."""
        if self.tokens is not None or (self.tokens_per_param is not None and self.flops is None):
            return None
        return Spending(
            flops=self.flops, days=self.days, money=self.money, loss=self.loss, inference_tokens=self.inference_tokens,
            serve_bytes=self.serve_bytes,
        )  # fmt: skip

    @property
    def has_size(self) -> bool:
        return self.params is not None or self.shape is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model and a number of tokens. `params` is total parameters, as wished or as the shape counts them."""

    shape: ModelShape
    params: float
    params_non_embedding: float
    tokens: float
    sequence_length: int
    accelerator: str | None
    count: int
    replicas: int | None = None
    sync_every: int = SYNC_STEPS
    streams: bool = False
    workload: Workload = "language"
    allocations: tuple[Allocation, ...] = ()
    """Ways to spend what may be spent, where the size was looked for."""

    @property
    def batch_multiple(self) -> int:
        """Sequences of a batch come in this many: each device and each replica has its own."""
        return math.lcm(self.count, self.replicas or 1)

    @property
    def flops(self) -> float:
        """6 N D with N the parameters that a token passes through: what the laws are asked with."""
        return flops_6nd(self.params * self.shape.params_active / self.shape.params, self.tokens)

    @property
    def exact_flops(self) -> float:
        """FLOPs with attention (causal) and head: what time is reckoned with."""
        return self.tokens * training_flops_per_token(self.shape, self.sequence_length)

    def counted(self, fit: Fit) -> Target:
        """The target as this fit is to be asked: with `params` in the count that its runs have."""
        return replace(self, params=self.columns()[count_of(fit)])

    def columns(self) -> dict[str, float]:
        """The target as law inputs."""
        return {
            "params": self.params,
            "params_active": float(self.shape.params_active),
            "params_non_embedding": self.params_non_embedding,
            "tokens": self.tokens,
            "unique_tokens": self.tokens,
            "flops": self.flops,
            "num_experts": float(self.shape.num_experts),
            "width": float(self.shape.width),
            "depth": float(self.shape.layers),
        }


def resolve(
    wish: Wish, loss_fit: Fit | None, speed: Speed | None, notes: Notes, sequences: int | None = None
) -> Target:
    """Fill in what the wish leaves open; every blank that is filled is a line of the plan.

    `sequences` is the batch at which the devices' speed counts; None where it is not known yet. Raises `PlanError` for
    a wish that contradicts itself or says too little.
    """
    _check(wish, speed)
    model = _model(wish, loss_fit, speed, notes)
    total, non_embedding = _both_counts(model.params, wish, model.shape)
    _after_training(model.shape, wish, notes)
    return Target(
        shape=model.shape,
        params=total,
        params_non_embedding=non_embedding,
        tokens=_tokens(total, model.shape, wish, loss_fit, speed, sequences, notes),
        sequence_length=wish.sequence_length,
        accelerator=wish.accelerator,
        count=wish.count if speed is None else speed.fleet.count,
        replicas=wish.replicas,
        sync_every=wish.sync_every,
        streams=wish.streams,
        workload=wish.workload,
        allocations=model.allocations,
    )


def _check(wish: Wish, speed: Speed | None) -> None:
    names = ("tokens", "flops", "days", "money", "loss", "tokens_per_param")
    said = [name for name in names if getattr(wish, name) is not None]
    if len(said) != 1 and (wish.has_size or said != ["flops", "tokens_per_param"]):
        raise PlanError(
            "say how long to train in exactly one way",
            hint="one of --tokens, --flops, --days, --money, --loss, --tokens-per-param",
        )
    if wish.params is not None and wish.shape is not None:
        raise PlanError(
            "a size and a shape contradict each other", hint="give --params, or --layers and --width"
        )
    if not wish.has_size and wish.spending is None:
        raise PlanError(
            "the model has no size",
            hint="give --params or --layers and --width, or --flops, --days, --money or --loss to find one",
        )
    if speed is None and (wish.days is not None or wish.money is not None):
        raise PlanError(
            "how much fits into so many days, or is bought, depends on the devices", hint="give --accelerator"
        )
    for name in ("params", *names, "serve_bytes"):
        value = getattr(wish, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise PlanError(f"{name} is {value:g}; it has to be positive")
    if wish.has_size and len(wish.experts) > 1:
        raise PlanError(
            "a number of experts is found for a budget, not for a size", hint="give --experts a number"
        )


@dataclass(frozen=True, slots=True)
class _Model:
    params: float
    shape: ModelShape
    allocations: tuple[Allocation, ...] = ()


def _model(wish: Wish, loss_fit: Fit | None, speed: Speed | None, notes: Notes) -> _Model:
    """The shape as said or assumed for the size, as said or found."""
    if wish.shape is not None:
        params = float(wish.shape.params)
        notes.line("params", params, unit="parameters", rule="counted from the shape", source="you")
        return _Model(params, wish.shape)
    if wish.params is not None:
        notes.line(
            "params", wish.params, unit=f"parameters ({wish.params_kind})", rule="as wished", source="you"
        )
        (experts,) = wish.experts
        shape = _assumed_shape(wish.params, wish.params_kind, experts, wish, notes)
        return _Model(wish.params if experts == 1 else float(shape.params), shape)
    assert wish.spending is not None, "a model without a size is found for what may be spent"
    if wish.tokens_per_param is not None:
        params = math.sqrt((wish.flops or 0.0) / (6 * wish.tokens_per_param))
        notes.line(
            "params", params, unit="parameters (total)", rule="C = 6 N D at the wished tokens a parameter",
            source="you",
        )  # fmt: skip
        return _Model(params, _assumed_shape(params, "total", 1, wish, notes))
    known = loss_law(loss_fit, wish.experts, notes)
    found = best_size(known, wish.spending, speed, wish.vocab, wish.experts, notes)
    best = found.best
    shape = _assumed_shape(best.params_active, "total", best.num_experts, wish, notes)
    return _Model(best.params, shape, found.rows)


def _after_training(shape: ModelShape, wish: Wish, notes: Notes) -> None:
    """What inference will compute and hold; a line where it was asked about. Raises PlanError for too large a model."""
    if wish.inference_tokens:
        notes.line(
            "inference", 2 * shape.params_active * wish.inference_tokens, unit="FLOPs", source="sardana2023",
            rule="2 N for each token that the finished model reads or writes", no_interval="counted, not estimated",
        )  # fmt: skip
    served = SERVED_BYTES * shape.params
    if wish.has_size and wish.serve_bytes is not None and served > wish.serve_bytes:
        raise PlanError(
            f"the weights of {shape.params:.3g} parameters take {format_bytes(served)} to serve, more than "
            f"{format_bytes(wish.serve_bytes)}",
            hint="a smaller model; without a size the best one is found",
        )


def _assumed_shape(params: float, kind: ParamsKind, experts: int, wish: Wish, notes: Notes) -> ModelShape:
    """A dense one of that size, or with so many experts for each of its feed-forward blocks."""
    dense = shape_for_params(params, vocab=wish.vocab, kind=kind)
    shape = with_experts(dense, experts, wish.experts_per_token)
    text = f"{shape.layers} layers, width {shape.width}, ffn {shape.ffn}, {shape.heads} heads, vocabulary {shape.vocab}"
    if experts > 1:
        text += (
            f", {experts} experts ({wish.experts_per_token} a token): {shape.params:.3g} parameters in all"
        )
    notes.line(
        "shape",
        text,
        unit="",
        rule="assumed: Llama-like with the wished number of parameters",
        source="scalecli",
    )
    notes.warn(
        "W-SHAPE-ASSUMED",
        f"from the size alone a shape was assumed ({text}); --layers and --width say otherwise",
    )
    return shape


def _both_counts(params: float, wish: Wish, shape: ModelShape) -> tuple[float, float]:
    """(total, non-embedding): the wished one as it was said, the other from the shape."""
    if wish.shape is not None:
        return float(shape.params), float(shape.params_non_embedding)
    if wish.params_kind == "non-embedding" and wish.params is not None:
        return params + shape.params - shape.params_non_embedding, params
    embedding = float(shape.params - shape.params_non_embedding)
    if params <= embedding:
        raise PlanError(
            f"{params:.3g} parameters are fewer than embedding and head of a vocabulary of {shape.vocab} have, "
            f"{embedding:.3g}",
            hint="give a smaller --vocab, or --params-kind non-embedding",
        )
    return params, params - embedding


def _tokens(
    params: float,
    shape: ModelShape,
    wish: Wish,
    loss_fit: Fit | None,
    speed: Speed | None,
    sequences: int | None,
    notes: Notes,
) -> float:
    if wish.tokens is not None:
        notes.line("tokens", wish.tokens, unit="tokens", rule="as wished", source="you")
        return wish.tokens
    if wish.spending is None:
        assert wish.tokens_per_param is not None, "one length was said"
        tokens = wish.tokens_per_param * params
        notes.line("tokens", tokens, unit="tokens", rule="as wished, by parameter", source="you")
        return tokens
    if wish.flops is not None:
        tokens = _tokens_for_flops(params * shape.params_active / shape.params, wish.flops, wish.spending)
        rule, source = "D = C / 6 N, N the parameters that a token passes through", "kaplan2020"
    elif wish.loss is not None:
        known = loss_law(loss_fit, (shape.num_experts,), notes)
        tokens = tokens_of(shape, wish.spending, None, known.law)
        rule, source = f"where the {known.law.name} law reaches a loss of {wish.loss:g}", known.source
    else:
        assert speed is not None, "days and money need devices"
        tokens = tokens_of(shape, wish.spending, speed, sequences=sequences)
        rule, source = "what the devices train in the wished time", speed.fleet.device.source
    if wish.inference_tokens:
        rule += "; inference is paid as well, a token at a third of a training token"
    notes.line(
        "tokens", tokens, unit="tokens", rule=rule, source=source, no_interval="what the size leaves room for"
    )
    return tokens


def _tokens_for_flops(params_active: float, flops: float, spending: Spending) -> float:
    tokens = flops / (6 * params_active) - spending.inference_as_training
    if tokens <= 0:
        raise PlanError(
            f"{spending.inference_tokens:.3g} tokens of inference leave nothing of {flops:.3g} FLOPs for training",
            hint="a smaller model, or fewer tokens of inference",
        )
    return tokens
