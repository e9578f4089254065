"""Which runs to train: grids over parameters, tokens, batch and learning rate, and ladders that fit a budget.

Tokens vary at fixed size, always: at a fixed number of tokens for each parameter no law in both can be told apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.config import Dtype, Evaluation, Optimizer, Parametrization, ProbeConfig
from scalecli.probes.family import ASPECT, SMALLEST_WIDTH, Family, family_of, shape_of_size
from scalecli.probes.foreign import Shape, example_tokens
from scalecli.probes.schedule import Schedule, ScheduleName
from scalecli.units import format_count

Cost = Callable[[Sequence[ProbeConfig]], float]

# Centres of the default grid, measured on builtin:python with AdamW (docs/benchmarks.md, "Proxy training"):
# the best batch and rate at REFERENCE_PARAMS and 20 tokens a parameter, and how they move from there.
REFERENCE_PARAMS = 26_000
REFERENCE_BATCH_TOKENS = 192
REFERENCE_RATE = 3.7e-3
RATE_PER_BATCH = 0.5
RATE_PER_PARAMS = -0.7
BATCH_PER_TOKENS = 0.5

TOKENS_PER_PARAM = (8.0, 20.0, 50.0)
BATCH_FACTORS = (0.5, 1.0, 2.0)
RATE_FACTORS = (0.5, 1.0, 2.0)
RUNG_RATIO = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What all runs of a grid share. `warmup_tokens_per_param` ties the warm-up to the model and not to the length,
    so that runs of different length share a trunk.

    `model` is our decoder when empty, `hf:CONFIG.json` or `package.module:factory`; `aspect` its width over depth;
    `tokenizer` is bytes when empty, `bpe:4096`, a tokenizer.json, or `ids:N` for token files. With a `timescale` above
    0 every run's decay is the one that keeps AdamW's timescale at that share of the run, whatever its batch, rate and
    length: runs of different length then share no trunk. `dtype` auto is float32, or what `on` makes of it.
    """

    model: str = ""
    tokenizer: str = ""
    aspect: float = ASPECT
    num_experts: int = 1
    experts_per_token: int = 1
    sequence_length: int = 128
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: ScheduleName = "cooldown"
    decay_fraction: float = 0.2
    warmup_tokens_per_param: float = 1.0
    timescale: float = 0.0
    grad_clip: float = 1.0
    dtype: Dtype | Literal["auto"] = "auto"
    parametrization: Parametrization = "standard"
    base_width: int = 64
    qk_norm: bool = False
    evaluation: Evaluation = field(default_factory=Evaluation)

    def family(self, corpus: Corpus) -> Family:
        """The shapes that sizes are rounded to."""
        return family_of(
            self.model,
            vocab=corpus.vocab,
            sequence_length=self.sequence_length,
            aspect=self.aspect,
            num_experts=self.num_experts,
            experts_per_token=self.experts_per_token,
        )

    def on(self, device_type: str) -> Recipe:
        """The recipe in the number format that suits the device, unless one was chosen."""
        if self.dtype != "auto":
            return self
        return replace(self, dtype="bfloat16" if device_type == "cuda" else "float32")

    def config(
        self,
        shape: Shape,
        corpus: Corpus,
        data: str,
        *,
        tokens: float,
        batch_tokens: float,
        learning_rate: float,
        seed: int = 0,
    ) -> ProbeConfig:
        """One run: batch rounded to whole sequences, tokens to whole steps."""
        length = example_tokens(shape, self.sequence_length)
        sequences = max(1, round(batch_tokens / length))
        steps = max(1, round(tokens / (sequences * length)))
        warmup = round(self.warmup_tokens_per_param * shape.params / (sequences * length))
        return ProbeConfig(
            shape=replace(shape, qk_norm=self.qk_norm) if isinstance(shape, ModelShape) else shape,
            data=data,
            tokenizer=self.tokenizer,
            data_sha256=corpus.sha256,
            sequence_length=length,
            batch_sequences=sequences,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            optimizer=self._decayed(learning_rate, steps),
            schedule=Schedule(
                name=self.schedule, warmup_steps=min(warmup, steps // 4), decay_fraction=self.decay_fraction
            ),
            grad_clip=self.grad_clip,
            dtype="float32" if self.dtype == "auto" else self.dtype,
            parametrization=self.parametrization,
            base_width=self.base_width,
            evaluation=self.evaluation,
        )

    def _decayed(self, learning_rate: float, steps: int) -> Optimizer:
        if not self.timescale:
            return self.optimizer
        if self.optimizer.name != "adamw":
            raise ProbeError(f"{self.optimizer.name} has no AdamW timescale to keep", hint="use adamw")
        return replace(self.optimizer, weight_decay=1.0 / (self.timescale * learning_rate * steps))


def default_batch_tokens(tokens: float) -> float:
    """Where the default grid is centred for runs of this length [tokens]."""
    return float(REFERENCE_BATCH_TOKENS * (tokens / (20 * REFERENCE_PARAMS)) ** BATCH_PER_TOKENS)


def default_learning_rate(params: float, batch_tokens: float) -> float:
    """Where the default grid of rates is centred for AdamW in the standard parametrisation."""
    by_params = (params / REFERENCE_PARAMS) ** RATE_PER_PARAMS
    by_batch = (batch_tokens / REFERENCE_BATCH_TOKENS) ** RATE_PER_BATCH
    return float(REFERENCE_RATE * by_params * by_batch)


def grid(
    corpus: Corpus,
    data: str,
    *,
    params: Sequence[float],
    tokens_per_param: Sequence[float] = TOKENS_PER_PARAM,
    batch_tokens: Sequence[float] | None = None,
    learning_rates: Sequence[float] | None = None,
    unique_tokens: Sequence[float] = (),
    seeds: int = 1,
    recipe: Recipe | None = None,
) -> list[ProbeConfig]:
    """Every combination, smallest models first. `data` is the corpus's specification, for the probes to read it.

    Where batches or rates are not given, each size gets its own, around the default for the middle of its lengths;
    runs that share a size and differ in length only have the same batches and rates, and share a trunk.
    """
    recipe = recipe or Recipe()
    configs = []
    for shape in _shapes(params, recipe.family(corpus)):
        middle = math.exp(
            sum(math.log(shape.params * ratio) for ratio in tokens_per_param) / len(tokens_per_param)
        )
        centre = default_batch_tokens(middle)
        batches = batch_tokens or [centre * factor for factor in BATCH_FACTORS]
        for batch in _whole(batches, shape, recipe.sequence_length):
            rate = default_learning_rate(shape.params, batch)
            rates = learning_rates or [_round(rate * factor) for factor in RATE_FACTORS]
            limits: list[int | None] = [round(limit) for limit in unique_tokens] or [None]
            for each, ratio, limit, seed in itertools.product(rates, tokens_per_param, limits, range(seeds)):
                config = recipe.config(
                    shape,
                    corpus,
                    data,
                    tokens=ratio * shape.params,
                    batch_tokens=batch,
                    learning_rate=each,
                    seed=seed,
                )
                configs.append(replace(config, unique_tokens=limit))
    return list(dict.fromkeys(configs))


def ladder(
    corpus: Corpus,
    data: str,
    *,
    budget: float,
    cost: Cost,
    rungs: int = 3,
    tokens_per_param: Sequence[float] = TOKENS_PER_PARAM,
    batch_tokens: Sequence[float] | None = None,
    learning_rates: Sequence[float] | None = None,
    unique_tokens: Sequence[float] = (),
    seeds: int = 1,
    recipe: Recipe | None = None,
) -> list[ProbeConfig]:
    """The grid over `rungs` sizes, RUNG_RATIO apart, whose largest is as large as the budget allows.

    `cost` gives what runs take, in the unit of `budget`: FLOPs, or seconds.

    Raises:
        ProbeError: not even the smallest ladder fits the budget.
    """

    def rungs_up_to(largest: float) -> list[ProbeConfig]:
        sizes = [largest / RUNG_RATIO**rung for rung in reversed(range(rungs))]
        return grid(
            corpus,
            data,
            params=sizes,
            tokens_per_param=tokens_per_param,
            batch_tokens=batch_tokens,
            learning_rates=learning_rates,
            unique_tokens=unique_tokens,
            seeds=seeds,
            recipe=recipe,
        )

    family = (recipe or Recipe()).family(corpus)
    smallest = family.member(SMALLEST_WIDTH).params * RUNG_RATIO ** (rungs - 1)
    best = rungs_up_to(smallest)
    if cost(best) > budget:
        raise ProbeError(
            f"a ladder up to {format_count(smallest)} parameters takes {cost(best):.3g}, the budget is {budget:.3g}",
            hint="raise the budget, or give fewer rungs, batches, learning rates or tokens per parameter",
        )
    low, high = math.log(smallest), math.log(smallest) + math.log(1e6)
    for _ in range(20):  # to a ten-thousandth of the size, far finer than the family
        middle = (low + high) / 2
        candidate = rungs_up_to(math.exp(middle))
        if cost(candidate) <= budget:
            low, best = middle, candidate
        else:
            high = middle
    return best


def _shapes(params: Sequence[float], family: Family) -> list[Shape]:
    """Distinct shapes for the sizes, in order of size."""
    shapes = {shape_of_size(family, size) for size in params}
    return sorted(shapes, key=lambda shape: shape.params)


def _whole(batches: Sequence[float], shape: Shape, sequence_length: int) -> list[int]:
    """Distinct batches of whole sequences, in order."""
    length = example_tokens(shape, sequence_length)
    return sorted({max(1, round(batch / length)) * length for batch in batches})


def _round(rate: float) -> float:
    """Two significant digits: enough for a rate, and the same number on every machine."""
    return float(f"{rate:.1e}")
