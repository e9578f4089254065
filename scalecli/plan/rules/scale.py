"""A good batch or learning rate at another size and length, by the slopes of published rules.

The slope of a rule is trusted further than its prefactor: value' = value rule(target) / rule(setting).
"""

from __future__ import annotations

from scalecli.data.catalogue import PublishedLaw, Workload, published_laws
from scalecli.plan.published import published_inputs, published_value
from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.optimizer import SAME_UPDATE
from scalecli.plan.rules.setting import Setting, scale_columns


def scale_by_published(
    setting: Setting, params: float, tokens: float, quantity: str, workload: Workload = "language"
) -> list[Moved]:
    """`batch_tokens` or `learning_rate` moved by every optimum rule over scale whose slopes are verified."""
    return [
        _moved(record, setting, params, tokens)
        for record in published_laws()
        if _name(record)
        and (record.quantity, record.output, record.workload) == ("optimum", quantity, workload)
        and "loss" not in published_inputs(record)
    ]


def _name(record: PublishedLaw) -> str:
    return record.preset or record.moves


def _moved(record: PublishedLaw, setting: Setting, params: float, tokens: float) -> Moved:
    before, after = scale_columns(setting.params, setting.tokens), scale_columns(params, tokens)
    here, there = published_value(record, before), published_value(record, after)
    left = [place for place, at in (("setting", before), ("target", after)) if record.outside(at)]
    minds = [f"outside its measured range: {' and '.join(left)}"] if left else []
    if setting.optimizer not in SAME_UPDATE:
        minds.append(f"measured with AdamW, not {setting.optimizer}")
    return Moved(
        quantity=record.output,
        value=None if here is None or there is None else getattr(setting, record.output) * there / here,
        rule=f"{_name(record)}: {_slopes(record)}",
        source=record.source,
        range=record.validity,
        warning="; ".join(minds) or None,
    )


def _slopes(record: PublishedLaw) -> str:
    if record.law == "power-product":
        return f"∝ {' '.join(f'{name}^{power:g}' for name, power in record.exponents.items())}"
    return f"linear in the logarithm of {', '.join(record.inputs)}"
