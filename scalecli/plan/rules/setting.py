"""One setting that was found good, and where; what the rules move."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from scalecli.accounting.flops import flops_6nd
from scalecli.errors import PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A good setting. `learning_rate` is its peak, `batch_tokens` a step, `params` total; None: not known.

    `beta1` is the momentum of SGD. `weight_decay` is PyTorch's (the decay a step is learning rate times it).
    """

    batch_tokens: float
    learning_rate: float
    params: float
    tokens: float
    optimizer: str = "adamw"
    width: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    epsilon: float | None = None
    weight_decay: float | None = None
    ema_decay: float | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise PlanError(f"the good setting's {entry.name} is {value:g}, which no setting has")
        for name in ("batch_tokens", "learning_rate", "params", "tokens"):
            if not getattr(self, name) > 0:
                raise PlanError(f"the good setting's {name} has to be positive")
        for name in ("beta1", "beta2", "ema_decay"):
            decay = getattr(self, name)
            if decay is not None and not decay < 1:
                raise PlanError(f"the good setting's {name} is {decay:g}; a decay lies below 1")
        if self.batch_tokens > self.tokens:
            raise PlanError(
                f"the good setting's batch of {self.batch_tokens:g} tokens is more than its {self.tokens:g} tokens",
                hint="a batch in sequences is multiplied by their length first",
            )

    @property
    def steps(self) -> float:
        return self.tokens / self.batch_tokens


def scale_columns(params: float, tokens: float) -> dict[str, float]:
    """A size and a length as inputs of published rules.

    N stands for every count: of the setting only one is known, and in a ratio the difference cancels.
    """
    return {
        "params": params,
        "params_non_embedding": params,
        "tokens": tokens,
        "flops": flops_6nd(params, tokens),
        "tokens_per_param": tokens / params,
    }
