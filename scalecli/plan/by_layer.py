"""Layers of a kind need not be treated alike: some are recomputed, some offloaded, and the others keep what they save.

Activations are offloaded as far as their transfers hide behind computation (Wu et al., 2408.10013, section 3), and no
more layers are recomputed than memory asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from scalecli.accounting.memory import Layout, Recipe

if TYPE_CHECKING:
    from scalecli.plan.layout import Choice

Reckon = Callable[[Layout, Recipe], "Choice"]


def by_layer(choice: Choice, layers: int, reckon: Reckon, fits: Callable[[Choice], bool]) -> Iterator[Choice]:
    """What fits with the fewest of a device's layers recomputed, without and with others offloaded, for a choice that
    recomputes all of them. `reckon` gives a layout and a recipe their bytes and time.
    """
    hiding = [0]
    if choice.layout.schedule == "1f1b" and choice.layout.offload == "none":
        hiding.append(_hidden_layers(choice, layers, reckon))
    for offloaded in dict.fromkeys(hiding):
        if (found := _least_recomputed(choice, offloaded, layers, reckon, fits)) is not None:
            yield found


def _least_recomputed(
    choice: Choice, offloaded: int, layers: int, reckon: Reckon, fits: Callable[[Choice], bool]
) -> Choice | None:
    """The choice that fits with so many layers offloaded and the fewest recomputed, if one does: the more are
    recomputed, the less memory it takes."""

    def treated(recomputed: int) -> Choice:
        return _treated(choice, recomputed, offloaded, layers, reckon)

    if not fits(treated(layers)):
        return None
    low, high = 0, layers
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(treated(middle)) else (middle + 1, high)
    return treated(high)


def _hidden_layers(choice: Choice, layers: int, reckon: Reckon) -> int:
    """Layers whose activations pass the link while a step computes; none where nothing is assumed to hide."""
    step = _treated(choice, 0, layers, layers, reckon).timed
    if not step.offload_bandwidth:
        return 0
    return math.floor(layers * min(1.0, step.offload_link / step.offload_bandwidth))


def _treated(choice: Choice, recomputed: int, offloaded: int, layers: int, reckon: Reckon) -> Choice:
    """The first layers recomputed, the next ones offloaded, the others kept. What recomputed layers start from goes
    along with the offloaded."""
    recipe = replace(
        choice.recipe,
        recompute=choice.recipe.recompute if recomputed else "none",
        recompute_layers=recomputed or None,
    )
    layout = choice.layout
    if offloaded:
        both = recomputed + offloaded
        layout = replace(layout, offload="activations", offload_layers=both if both < layers else None)
    return reckon(layout, recipe)
