"""muP: a learning rate found at one width, used at another."""

from __future__ import annotations

from dataclasses import dataclass

from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.setting import Setting
from scalecli.plan.rules.structure import Structure


@dataclass(frozen=True, slots=True)
class Group:
    """Weights that share multipliers of the base rate, of weight decay (so that rate times decay stays) and of output.

    `initial_std` is None where muP leaves it as it was.
    """

    name: str
    multiplier: float
    weight_decay: float = 1.0
    output: float = 1.0
    initial_std: float | None = None


def width_groups(from_width: float, to_width: float, structure: Structure | None = None) -> list[Group]:
    """Multipliers under Adam, against the rate of dense layers at `from_width`. Yang et al. 2022, table 8.

    They belong with muP's initialisation and its 1/d attention; `structure` says what hidden layers are made of.
    """
    layer = structure or Structure()
    hidden = [
        Group(
            name="hidden matrices" if layer.kind == "dense" else f"hidden: {factor.name}",
            multiplier=from_width / factor.fan_in,
            weight_decay=factor.fan_in / from_width,
            initial_std=factor.initial_std,
        )
        for factor in layer.factors(to_width)
    ]
    return [Group("embedding, vectors", 1.0), *hidden, Group("output", 1.0, output=from_width / to_width)]


def width_transfer(setting: Setting, to_width: float) -> list[Moved]:
    """The base rate as it is, the hidden matrices' with 1/width, and weight decay with width so that lr wd stays."""
    assert setting.width is not None, "the caller knows the width of the setting"
    ratio = to_width / setting.width
    moved = [
        _moved("learning_rate_vectors", setting.learning_rate, "muP: embeddings and vectors keep the rate"),
        _moved("learning_rate_hidden", setting.learning_rate / ratio, "muP: hidden matrices ∝ 1/width"),
    ]
    if setting.weight_decay:
        rule = "muP: weight decay of hidden matrices ∝ width keeps lr wd"
        moved.append(_moved("weight_decay_hidden", setting.weight_decay * ratio, rule))
    return moved


def _moved(quantity: str, value: float, rule: str) -> Moved:
    return Moved(
        quantity=quantity,
        value=value,
        rule=rule,
        source="yang2022",
        range="models trained in muP; width only: neither depth, tokens nor batch",
        warning="only if both models are parametrized in muP",
    )
