"""How sizes enter initialisation, forward multipliers and learning rates. Pure arithmetic.

`standard`: every matrix starts with variance 1/fan-in, one learning rate for all.
`mup`: the maximal-update parametrisation for Adam (Yang et al. 2022, 2203.03466, table 8): matrices inside
the network learn at base_width/width of the rate, logits are multiplied by base_width/width, attention
divides by the head's dimension and not by its root. At width = base_width (and head dimension HEAD_DIM) both
are the same network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scalecli.accounting.shape import ModelShape
from scalecli.probes.config import Parametrization

Role = Literal["embedding", "hidden", "head", "vector", "kernel"]
"""`hidden` are matrices inside the network, `kernel` weights with more axes, of foreign models only."""
BASE_HEAD_DIM = 32
"""Head dimension at which muP's 1/d attention equals the usual 1/sqrt(d)."""
EMBEDDING_STD = 0.2
"""Radford et al. 2019 (GPT-2); the first norm rescales it, so only its ratio to the updates matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipliers:
    """What the parametrisation decides for one shape."""

    rate: dict[Role, float]
    logits: float
    attention: float

    @classmethod
    def of(cls, shape: ModelShape, parametrization: Parametrization, base_width: int) -> Multipliers:
        if parametrization == "standard":
            return cls(
                rate={"embedding": 1.0, "hidden": 1.0, "head": 1.0, "vector": 1.0},
                logits=1.0,
                attention=shape.head_dim**-0.5,
            )
        narrow = base_width / shape.width
        return cls(
            rate={"embedding": 1.0, "hidden": narrow, "head": 1.0, "vector": 1.0},
            logits=narrow,
            attention=math.sqrt(BASE_HEAD_DIM) / shape.head_dim,
        )


def initial_std(role: Role, *, fan_in: int, residual_layers: int) -> float:
    """Standard deviation of a matrix at the start, in both parametrisations.

    Matrices that write to the residual stream pass `residual_layers` > 0 and start smaller by the root of how
    many write to it, two a layer (Radford et al. 2019, section 2.3). The head starts at zero: the first loss
    is the logarithm of the vocabulary, at every width.
    """
    if role == "embedding":
        return EMBEDDING_STD
    if role == "head":
        return 0.0
    return 1.0 / math.sqrt(fan_in * max(1, 2 * residual_layers))
