"""Published utilisations with the layouts that reached them; utilisations.toml says what each field means."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from scalecli.accounting.flops import AttentionCount
from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.shape import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedStep:
    """One training step that somebody ran, and the share of the dense peak that it reached."""

    name: str
    shape: ModelShape
    accelerator: str
    layout: Layout
    recipe: Recipe
    sequence_length: int
    batch_sequences: int
    micro_batch_sequences: int
    utilisation: float
    counted: Literal["model", "hardware"]
    attention: AttentionCount
    role: Literal["calibration", "check"]
    source: str
    where: str
    doubt: str = ""


@cache
def published_steps() -> tuple[PublishedStep, ...]:
    """All of them, in the order of the file."""
    text = files("scalecli.data.catalogue").joinpath("utilisations.toml").read_text(encoding="utf-8")
    return tuple(_step(name, entry) for name, entry in tomllib.loads(text).items())


def _step(name: str, entry: dict[str, Any]) -> PublishedStep:
    layout = Layout(**entry.pop("layout"))
    batch, size = entry["batch_sequences"], entry["micro_batch_sequences"]
    recipe = Recipe(**entry.pop("recipe"), accumulation=max(1, batch // layout.dp // size))
    return PublishedStep(
        name=name, shape=ModelShape(**entry.pop("model")), layout=layout, recipe=recipe, **entry
    )
