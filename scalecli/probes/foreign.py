"""The shape of a model that is not our decoder: what its ladder, its identity and its costs need. No torch.

A `transformers` configuration is kept whole, so that a probe needs no file; a factory of the user's is named, with the
SHA-256 of the file that defines it, so that an edited model is another model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scalecli.accounting.shape import ModelShape

TRANSFORMERS = "hf"
"""The `model` of a shape whose `content` is a `transformers` configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignShape:
    """One member of a foreign family, with what was counted on the built model.

    `model` is `hf` or `package.module:factory`; `content` the configuration as canonical JSON, or the SHA-256 of the
    factory's file and data. `flops_per_token` is counted over forward and backward at the training's sequence length
    [FLOP]. `tokens_per_example` is None where examples are cut from a corpus at any length.
    """

    model: str
    content: str
    width: int
    layers: int
    vocab: int
    params: int
    params_non_embedding: int
    params_active: int
    flops_per_token: float
    tokens_per_example: int | None = None
    num_experts: int = 1
    experts_per_token: int = 1

    @property
    def from_transformers(self) -> bool:
        return self.model == TRANSFORMERS

    def identity(self) -> dict[str, Any]:
        """What decides the model: counts may differ between versions of torch, the model does not."""
        names = ("model", "content", "width", "layers", "vocab", "tokens_per_example")
        return {name: getattr(self, name) for name in names}


def brings_its_data(model: str) -> bool:
    """Whether a `--model` is a factory of the user's.

    >>> [brings_its_data(model) for model in ("", "hf:config.json", "package.module:factory")]
    [False, False, True]
    """
    return bool(model) and model.partition(":")[0] != TRANSFORMERS


Shape = ModelShape | ForeignShape


def shape_from(record: dict[str, Any]) -> Shape:
    """Inverse of `dataclasses.asdict` for either kind."""
    return ForeignShape(**record) if "content" in record else ModelShape(**record)


def example_tokens(shape: Shape, sequence_length: int) -> int:
    """Tokens of one example: the task's own number, or the sequences that are cut from a corpus."""
    fixed = shape.tokens_per_example if isinstance(shape, ForeignShape) else None
    return fixed or sequence_length
