"""Models of training that are solved exactly: run tables whose truth is known, to test fits and probes on.

Every oracle is a frozen dataclass with its settings, `columns` (what was measured, without noise) and `truth` (what is
known of it, in words with a number each).
"""

from __future__ import annotations

import difflib
from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from scalecli.errors import DataError
from scalecli.fitters.oracles.dynamical import DynamicalModel
from scalecli.fitters.oracles.ladder import ChinchillaLadder
from scalecli.fitters.oracles.random_features import RandomFeatures
from scalecli.fitters.oracles.sgd_features import SgdFeatures


class Oracle(Protocol):
    """See the module."""

    name: ClassVar[str]
    source: ClassVar[str]
    measured: ClassVar[str]
    """The column that noise goes on."""
    group: ClassVar[str | None]
    """The column whose rows share an error; None where every row stands alone."""

    def columns(self) -> dict[str, NDArray[Any]]: ...
    def truth(self) -> dict[str, float]: ...


ORACLES: tuple[type[Oracle], ...] = (ChinchillaLadder, DynamicalModel, RandomFeatures, SgdFeatures)


def oracle_named(name: str) -> type[Oracle]:
    """The oracle of this name; `DataError` with close names otherwise."""
    known = {oracle.name: oracle for oracle in ORACLES}
    if name not in known:
        close = difflib.get_close_matches(name, known) or sorted(known)
        raise DataError(f"there is no oracle {name!r}; there are {', '.join(close)}")
    return known[name]
