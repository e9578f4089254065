"""The square-root rule of adaptive optimizers, with all that it moves."""

from __future__ import annotations

import math

from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.setting import Setting

NAME = "square root: lr ∝ √batch, 1 - beta ∝ batch, epsilon ∝ 1/√batch"


def square_root(setting: Setting, learning_rate: float, factor: float, past_critical: bool) -> list[Moved]:
    """lr' = √k lr, 1 - beta' = k (1 - beta), epsilon' = epsilon / √k for a batch k times as large.

    The rule keeps the stochastic differential equation that Adam follows, which holds while noise dominates: below
    the critical batch. It is one rule: the learning rate alone, without betas and epsilon, is another. Malladi et
    al. 2022, definition 5.3. `learning_rate` is the one being moved: the setting's, or that after a move in scale.
    """
    warning = "beyond the critical batch the rule does not hold" if past_critical else None
    moved = [_moved("learning_rate", learning_rate * math.sqrt(factor), warning)]
    for name in ("beta1", "beta2"):
        decay = getattr(setting, name)
        if decay is not None:
            moved.append(_decay(name, decay, factor, warning))
    if setting.epsilon is not None:
        moved.append(_moved("epsilon", setting.epsilon / math.sqrt(factor), warning))
    return moved


def _decay(name: str, decay: float, factor: float, warning: str | None) -> Moved:
    forgotten = factor * (1 - decay)
    if forgotten >= 1:
        return _moved(name, None, f"{factor:.3g}× the batch would forget all of the past at every step")
    return _moved(name, 1 - forgotten, warning)


def _moved(quantity: str, value: float | None, warning: str | None) -> Moved:
    return Moved(
        quantity=quantity,
        value=value,
        rule=NAME,
        source="malladi2022",
        range="Adam and RMSProp below the critical batch",
        warning=warning,
    )
