"""What somebody wants to train, with the blanks filled in: shape, size, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from scalecli.accounting.flops import flops_6nd, training_flops_per_token
from scalecli.accounting.memory import Recipe
from scalecli.accounting.shape import ModelShape, shape_for_params
from scalecli.data.catalogue import Accelerator, Workload
from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.plan.cost import tokens_in_days
from scalecli.plan.notes import Notes

ParamsKind = Literal["total", "non-embedding"]

# Hoffmann et al. 2022 (2203.15556), table 3: about 20 tokens a parameter at every budget. Used without a fit only.
FOLKLORE_TOKENS_PER_PARAM = 20.0

# Charles et al. 2025 (2503.09799), section 3: inner steps between two synchronisations in every fit of its laws.
SYNC_STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user said. Either a size or a shape (or neither, with compute), and one way to say how long."""

    params: float | None = None
    params_kind: ParamsKind = "total"
    shape: ModelShape | None = None
    tokens: float | None = None
    flops: float | None = None
    days: float | None = None
    tokens_per_param: float | None = None
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
    workload: Workload = "language"
    """What is trained: published rules are those for it."""
    recipe: Mapping[str, str] = field(default_factory=dict)
    """How the target will be trained, for comparison with the runs: tokenizer, schedule, loss_kind, ..."""


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
    workload: Workload = "language"

    @property
    def batch_multiple(self) -> int:
        """Sequences of a batch come in this many: each device and each replica has its own."""
        return math.lcm(self.count, self.replicas or 1)

    @property
    def flops(self) -> float:
        """6 N D with N the total parameters: what the laws are asked with."""
        return flops_6nd(self.params, self.tokens)

    @property
    def exact_flops(self) -> float:
        """FLOPs with attention (causal) and head: what time is reckoned with."""
        return self.tokens * training_flops_per_token(self.shape, self.sequence_length)

    def counted(self, fit: Fit) -> Target:
        """The target as this fit is to be asked: with `params` in the count that its runs have."""
        kind = (fit.provenance.get("setup") or {}).get("params_kind", "params")
        return replace(self, params=self.columns()[kind])

    def columns(self) -> dict[str, float]:
        """The target as law inputs."""
        return {
            "params": self.params,
            "params_active": float(self.shape.params_active),
            "params_non_embedding": self.params_non_embedding,
            "tokens": self.tokens,
            "unique_tokens": self.tokens,
            "flops": self.flops,
            "width": float(self.shape.width),
            "depth": float(self.shape.layers),
        }


def resolve(
    wish: Wish, loss_fit: Fit | None, device: Accelerator | None, recipe: Recipe, notes: Notes
) -> Target:
    """Fill in what the wish leaves open; every blank that is filled is a line of the plan.

    Raises `PlanError` for a wish that contradicts itself or says too little.
    """
    _check(wish)
    if wish.shape is not None:
        params = float(wish.shape.params)
        notes.line("params", params, unit="parameters", rule="counted from the shape", source="you")
    elif wish.params is not None:
        params = wish.params
        notes.line("params", params, unit=f"parameters ({wish.params_kind})", rule="as wished", source="you")
    else:
        params = _optimal_params(wish, loss_fit, notes)
    shape = wish.shape or _assumed_shape(params, wish, notes)
    total, non_embedding = _both_counts(params, wish, shape)
    tokens = _tokens(total, shape, wish, device, recipe, notes)
    return Target(
        shape=shape,
        params=total,
        params_non_embedding=non_embedding,
        tokens=tokens,
        sequence_length=wish.sequence_length,
        accelerator=wish.accelerator,
        count=wish.count,
        replicas=wish.replicas,
        sync_every=wish.sync_every,
        workload=wish.workload,
    )


def _check(wish: Wish) -> None:
    lengths = [wish.tokens, wish.flops, wish.days, wish.tokens_per_param]
    if sum(length is not None for length in lengths) != 1 and not (
        wish.params is None and wish.shape is None and wish.flops and wish.tokens_per_param
    ):
        raise PlanError(
            "say how long to train in exactly one way",
            hint="one of --tokens, --flops, --days, --tokens-per-param",
        )
    if wish.params is not None and wish.shape is not None:
        raise PlanError(
            "a size and a shape contradict each other", hint="give --params, or --layers and --width"
        )
    if wish.params is None and wish.shape is None and wish.flops is None:
        raise PlanError(
            "the model has no size", hint="give --params or --layers and --width, or --flops to find one"
        )
    for name in ("params", "tokens", "flops", "days", "tokens_per_param"):
        value = getattr(wish, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise PlanError(f"{name} is {value:g}; it has to be positive")


def _optimal_params(wish: Wish, loss_fit: Fit | None, notes: Notes) -> float:
    """The size for a compute budget: the loss law's optimum, the wished tokens a parameter, or folklore."""
    assert wish.flops is not None
    flops = wish.flops
    if wish.tokens_per_param is not None:
        params = math.sqrt(flops / (6 * wish.tokens_per_param))
        notes.line(
            "params",
            params,
            unit="parameters (total)",
            rule="C = 6 N D at the wished tokens a parameter",
            source="you",
        )
        return params
    if loss_fit is not None and hasattr(loss_fit.law, "optimal_params"):
        found = loss_fit.query(lambda law: law.optimal_params(flops))
        notes.line(
            "params",
            found,
            unit="parameters (total)",
            rule="least loss at C = 6 N D",
            source=loss_fit.law.name,
        )
        return found.value
    params = math.sqrt(flops / (6 * FOLKLORE_TOKENS_PER_PARAM))
    notes.line(
        "params", params, unit="parameters (total)", rule="20 tokens a parameter at C = 6 N D", source="hoffmann2022",
        warning="folklore until a loss law is fitted",
    )  # fmt: skip
    notes.warn("W-NO-LOSS-FIT", "no loss law was given: the size follows 20 tokens a parameter")
    return params


def _assumed_shape(params: float, wish: Wish, notes: Notes) -> ModelShape:
    shape = shape_for_params(params, vocab=wish.vocab, kind=wish.params_kind)
    text = f"{shape.layers} layers, width {shape.width}, ffn {shape.ffn}, {shape.heads} heads, vocabulary {shape.vocab}"
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
    embedding = shape.params - shape.params_non_embedding
    if params <= embedding:
        raise PlanError(
            f"{params:.3g} parameters are fewer than embedding and head of a vocabulary of {shape.vocab} have, "
            f"{embedding:.3g}",
            hint="give a smaller --vocab, or --params-kind non-embedding",
        )
    return params, params - embedding


def _tokens(
    params: float, shape: ModelShape, wish: Wish, device: Accelerator | None, recipe: Recipe, notes: Notes
) -> float:
    if wish.tokens is not None:
        notes.line("tokens", wish.tokens, unit="tokens", rule="as wished", source="you")
        return wish.tokens
    if wish.flops is not None:
        tokens = wish.flops / (6 * params)
        notes.line("tokens", tokens, unit="tokens", rule="D = C / 6 N, N total", source="kaplan2020")
        return tokens
    if wish.days is not None:
        if device is None:
            raise PlanError(
                "how much fits into so many days depends on the devices", hint="give --accelerator"
            )
        tokens = tokens_in_days(
            wish.days, shape, wish.sequence_length, accelerator=device, count=wish.count, recipe=recipe
        )
        notes.line(
            "tokens",
            tokens,
            unit="tokens",
            rule="what the devices train in the wished days",
            source=device.source,
        )
        return tokens
    assert wish.tokens_per_param is not None
    tokens = wish.tokens_per_param * params
    notes.line("tokens", tokens, unit="tokens", rule="as wished, by parameter", source="you")
    return tokens
