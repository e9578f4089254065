"""Is the decay of these runs one that others found good for their length? No torch."""

from __future__ import annotations

from collections.abc import Sequence

from scalecli.data.catalogue import published_law
from scalecli.data.notes import Notice
from scalecli.probes.config import ProbeConfig

FAR = 10.0
"""A timescale this factor from the published one is said: nearer ones may well be better for other data."""


def timescale_note(configs: Sequence[ProbeConfig]) -> Notice | None:
    """A warning when AdamW remembers far more or far less of a run than where losses were lowest elsewhere."""
    law = published_law("power-lines-timescale")
    off = []
    for config in (each for each in configs if each.shape.vocab):  # it is a law of language models
        best = law.predict({"tokens_per_param": config.tokens / config.shape.params})
        if config.timescale is not None and not 1 / FAR <= config.timescale / best <= FAR:
            off.append((config.timescale, best))
    if not off:
        return None
    worst, best = max(off, key=lambda pair: max(pair[0] / pair[1], pair[1] / pair[0]))
    return Notice(
        "W-TIMESCALE",
        f"{len(off)} of {len(configs)} runs have an AdamW timescale 1/(rate decay) far from the published best for "
        f"their length ({law.source}): {worst:.3g} of the run against {best:.3g}; recipe.timescale keeps it",
    )
