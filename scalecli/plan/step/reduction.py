"""How many bits of a gradient data-parallel ranks send: whole values, or what compressed optimizers send instead."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from scalecli.data.catalogue.names import close_names
from scalecli.errors import PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """Bits sent to the others and received back for each parameter and step, after `whole_share` of the steps that
    send whole values. What is not said comes back as a sum of the ranks' bits."""

    name: str
    bits_sent: float
    bits_received: float | None = None
    whole_share: float
    source: str
    where: str

    def bytes_per_weight(self, whole_bytes: int, ranks: int) -> float:
        """Mean over all steps and both ways of what passes for a weight [bytes].

        >>> UNCOMPRESSED.bytes_per_weight(2, 64)
        2.0
        """
        back = math.log2(2 * ranks + 1) if self.bits_received is None else self.bits_received
        compressed = (self.bits_sent + back) / 2 / 8
        return self.whole_share * whole_bytes + (1 - self.whole_share) * compressed


UNCOMPRESSED = Reduction(name="none", bits_sent=0.0, bits_received=0.0, whole_share=1.0, source="", where="")


def reduction(name: str) -> Reduction:
    """The reduction of this name. Raises PlanError with close names."""
    known = reductions()
    if name not in known:
        raise PlanError(f"there is no reduction {name!r}; {close_names(name, known)}")
    return known[name]


@cache
def reductions() -> Mapping[str, Reduction]:
    """All reductions by name, uncompressed first."""
    entries = tomllib.loads(files("scalecli.data.catalogue").joinpath("reductions.toml").read_text())
    return {"none": UNCOMPRESSED} | {name: Reduction(name=name, **entry) for name, entry in entries.items()}
