"""What a law is: a frozen dataclass whose fields are its parameters.

Every field is annotated `Annotated[float, Param(...)]`. A field may also hold an array of shape (draws, 1):
the law is then a bundle of draws, and `predict` and `gradient` gain a leading `draws` axis by broadcasting. A
query of a law (`optimal_params`, say) does the same and has NaN where a draw has no answer.

Laws inherit from nothing. What the solver may rely on beyond `Law` is declared by the law:

- `PowerSum`: the prediction is a sum of `Term`s (scale x column powers); solved by the exact, fastest path;
- `PartlyLinear`: the prediction is linear in some parameters once the others are known; these are then
  eliminated while the rest are searched (variable projection);
- `EstimatedLaw`: not a minimum over rows at all but the outcome of a procedure;
- `GridLaw`: an estimated law that knows which rows share an error, and brings its own draws and warnings.

A law that declares none of these is searched from starts spread over `Param.start`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast, get_type_hints, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scalecli.data.notes import Notice

Array = NDArray[np.float64]
Columns = Mapping[str, Array]
"""Canonical column name -> values of shape (rows,)."""


@dataclass(frozen=True, slots=True)
class Param:
    """Bounds, unit and search range of one law parameter.

    `log` parameters are positive scale factors, searched as their logarithm. `start` is the range starts are
    drawn from (raw units; evenly in the logarithm for `log` parameters); without it, the bounds are. It says
    where a search is worth its time, and never holds a published value by itself.
    """

    low: float
    high: float
    unit: str = ""
    log: bool = False
    start: tuple[float, float] | None = None


class Law(Protocol):
    """A formula over run columns. `name` is what the command line calls it, `output` the column it
    predicts."""

    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    output: ClassVar[str]
    sources: ClassVar[tuple[str, ...]]

    def predict(self, x: Columns) -> Array:
        """Values of shape (rows,), or (draws, rows) for a bundle."""
        ...

    def gradient(self, x: Columns) -> Array:
        """Derivatives by raw parameter in field order: (rows, parameters), or (draws, rows, parameters)."""
        ...


@dataclass(frozen=True, slots=True)
class Term:
    """One addend of a `PowerSum`: scale x (columns in `falls`)^-exponent x (columns in `rises`)^+exponent.

    `falls` and `rises` map a column to the parameter that is its exponent. Terms may share an exponent, never
    a scale; every scale is a `log` parameter. A term with `only` counts in the rows where that column is 1, and
    not where it is 0.
    """

    scale: str
    falls: Mapping[str, str] = field(default_factory=dict)
    rises: Mapping[str, str] = field(default_factory=dict)
    only: str | None = None

    def powers(self) -> list[tuple[str, str, float]]:
        """(column, exponent, sign) of every power in the term."""
        return [(c, e, -1.0) for c, e in self.falls.items()] + [(c, e, 1.0) for c, e in self.rises.items()]


@runtime_checkable
class PowerSum(Protocol):
    """A law that is a sum of power-law terms. It is partly linear too: in the scales of its terms."""

    terms: ClassVar[tuple[Term, ...]]


@runtime_checkable
class PartlyLinear(Protocol):
    """A law that is linear in the parameters named in `linear`, given the others.

    Those that are `log` parameters, or have a lower bound of at least 0, are kept non-negative.
    """

    linear: ClassVar[tuple[str, ...]]


@runtime_checkable
class EstimatedLaw(Protocol):
    """A law that is not the minimum of a sum over rows but the outcome of a procedure (isoFLOP vertices,
    say).

    `required` are the run columns that `estimate` reads. `weights` has shape (draws, rows): non-negative row
    weights, so that a bootstrap is one call. Returns raw parameters of shape (draws, parameters); a row of
    NaN is a draw in which the procedure had no answer (the caller counts and reports those).
    """

    required: ClassVar[tuple[str, ...]]

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array: ...


def optional_columns(law: type[Any]) -> tuple[str, ...]:
    """The columns that fitting the law takes where they are there."""
    return tuple(law.optional) if isinstance(law, GridLaw) else ()


def measured_column(law: type[Any]) -> str:
    """The run column of measured values that the law is fitted to.

    That is its output; but the procedure of an `EstimatedLaw` reads losses, whatever it then predicts.
    """
    return "loss" if isinstance(law, EstimatedLaw) else str(law.output)


def required_columns(law: type[Any]) -> tuple[str, ...]:
    """The run columns that fitting the law takes, besides the measured one."""
    return tuple(law.required) if isinstance(law, EstimatedLaw) else tuple(law.inputs)


@runtime_checkable
class ClusteredLaw(Protocol):
    """A law that knows which rows belong together, whatever column the user groups by: `clusters` numbers them.

    Rows of a cluster share an error, and a prediction may depend on the cluster's other rows.
    """

    @classmethod
    def clusters(cls, x: Columns) -> NDArray[np.intp]: ...


@runtime_checkable
class CostlyLaw(Protocol):
    """A law that goes through more numbers than there are rows to predict them; `work` says how many."""

    @classmethod
    def work(cls, x: Columns) -> int: ...


@runtime_checkable
class GridLaw(ClusteredLaw, Protocol):
    """An estimated law over settings that several runs share, and with them an error.

    `optional` are columns of `x` that it reads where they are there. `draws` are its bootstrap, from row weights
    (rows,) and how often each row's setting was drawn, `counts` (draws, rows). `notices` are what makes these runs
    weak for this law; a `y` that is not finite is a run that diverged.
    """

    optional: ClassVar[tuple[str, ...]]

    @classmethod
    def draws(
        cls, x: Columns, y: Array, weights: Array, counts: Array, rng: np.random.Generator
    ) -> Array: ...

    @classmethod
    def notices(cls, x: Columns, y: Array) -> list[Notice]: ...


L = TypeVar("L")


def names(law: type[Any]) -> list[str]:
    """The law's parameters in field order."""
    return [field.name for field in fields(law)]


def parameters(law: type[Any]) -> dict[str, Param]:
    """The law's parameters in field order, with what their annotations say.

    >>> from scalecli.fitters.laws.chinchilla import Chinchilla
    >>> list(parameters(Chinchilla))
    ['E', 'A', 'B', 'alpha', 'beta']
    """
    return dict(_marks(cast(Hashable, law)))


@cache
def _marks(law: type[Any]) -> dict[str, Param]:
    hints = get_type_hints(law, include_extras=True)
    found = {name: getattr(hints[name], "__metadata__", ()) for name in names(law)}
    return {name: next(mark for mark in marks if isinstance(mark, Param)) for name, marks in found.items()}


def linear_parameters(law: type[Any]) -> tuple[str, ...]:
    """The parameters in which the law declares to be linear, given the others."""
    if isinstance(law, PowerSum):
        return tuple(term.scale for term in law.terms)
    return law.linear if isinstance(law, PartlyLinear) else ()


def values(law: Any) -> Array:
    """Parameters in field order, shape (parameters,), or (draws, parameters) for a bundle."""
    columns = [np.asarray(getattr(law, name), dtype=float) for name in names(type(law))]
    return np.concatenate(columns, axis=-1) if columns[0].ndim else np.array(columns)


def with_values(law: type[L], vector: Array) -> L:
    """The law at these parameters: `vector` of shape (parameters,), or (draws, parameters) for a bundle."""
    if vector.ndim == 1:
        return law(**{name: float(value) for name, value in zip(names(law), vector, strict=True)})
    return law(**{name: vector[:, i : i + 1] for i, name in enumerate(names(law))})


def scalar_of(function: Callable[[Any], Any], law: type[Any], vectors: Array) -> Array:
    """A number computed from a law, at parameters (draws, parameters): (draws,), NaN or infinite without
    answer.

    >>> from scalecli.fitters.laws.power import Power
    >>> scalar_of(lambda law: law.input_for_loss(2.0), Power, np.array([[8.0, 0.5], [8.0, 0.0]]))
    array([16., inf])
    """
    if not len(vectors):
        return np.empty(0)
    with np.errstate(all="ignore"):
        found = np.asarray(function(with_values(law, vectors)), dtype=float)
    return np.broadcast_to(found, (len(vectors), 1))[:, 0]
