"""The model that `--params` or `--layers --width ...` name on the command line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import typer

from scalecli.cli import options

if TYPE_CHECKING:
    from scalecli.accounting.shape import ModelShape

# Llama's feed-forward width is 8/3 of the model's (2302.13971, section 2.1), rounded up to a multiple of this.
FFN_MULTIPLE = 256


def shape_of(
    layers: int | None,
    width: int | None,
    ffn: int | None,
    heads: int | None,
    kv_heads: int | None,
    vocab: int,
) -> ModelShape | None:
    """The shape, or None when neither depth nor width is given; a usage error when only one is, or other sizes are."""
    if layers is None and width is None:
        for option, size in (("--ffn", ffn), ("--heads", heads), ("--kv-heads", kv_heads)):
            if size is not None:
                raise typer.BadParameter("goes with --layers and --width", param_hint=option)
        return None
    if layers is None or width is None:
        raise typer.BadParameter("--layers and --width go together", param_hint="--layers")
    from scalecli.accounting.shape import ModelShape

    heads = heads or _heads(width)
    multiple = FFN_MULTIPLE if width >= FFN_MULTIPLE else 8
    return ModelShape(
        layers=layers,
        width=width,
        ffn=ffn or math.ceil(8 * width / 3 / multiple) * multiple,
        heads=heads,
        kv_heads=kv_heads or heads,
        vocab=vocab,
    )


def wished_shape(
    params: float | None,
    params_kind: str,
    layers: int | None,
    width: int | None,
    ffn: int | None,
    heads: int | None,
    kv_heads: int | None,
    vocab: int,
) -> ModelShape:
    """The shape that the options name, or one of the wished size; a usage error unless it is one of the two."""
    from scalecli.accounting.shape import shape_for_params

    shape = shape_of(layers, width, ffn, heads, kv_heads, vocab)
    if (shape is None) == (params is None):
        raise typer.BadParameter("give either --params, or --layers and --width", param_hint="--params")
    if shape is not None:
        return shape
    assert params is not None
    kind = options.one_of(params_kind, ("total", "non-embedding"), "--params-kind")
    return shape_for_params(params, vocab=vocab, kind=kind)


def _heads(width: int) -> int:
    """Heads of 128 for wide models and of 64 for others, as far as they divide the width."""
    for head_dim in (128, 64, 32, 16) if width >= 2048 else (64, 32, 16):
        if width % head_dim == 0:
            return width // head_dim
    return 1
