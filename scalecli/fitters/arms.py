"""Several recipes fitted at once with exponents that they share: each has its own scales and floor.

Better data, optimizers and architectures mostly change the scale factors of a law and not its exponents (Hestness et
al. 2017, section 5; Volkova et al. 2026, arXiv 2602.07712); fitted apart, the exponents of every arm wobble, and the
arms cross somewhere by chance. One joint fit determines the exponents from all runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass, replace
from typing import Annotated, Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.errors import DataError, TooFewRuns
from scalecli.fitters.compare.exponents import exponents_of
from scalecli.fitters.domain import domain_of
from scalecli.fitters.estimate import Estimate
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.law import (
    Array,
    Columns,
    EstimatedLaw,
    PowerSum,
    Term,
    measured_column,
    names,
    parameters,
    with_values,
)
from scalecli.fitters.resample import Clusters
from scalecli.fitters.runs import columns_of, estimate_runs, group_labels, loss_std_of, setup_of
from scalecli.fitters.speed import Speed

MOST_ARMS = 8
DIFFERENT = 0.05
"""A p-value below which the arms' exponents are said to differ."""


@dataclass(frozen=True)
class Arms:
    """A fit for each arm, all from one joint search; and the exponents that each had alone."""

    column: str
    shared: tuple[str, ...]
    fits: Mapping[str, Fit]
    alone: Mapping[str, Mapping[str, float]]
    p_value: float | None
    """How often exponents this far apart would be seen if they were the same; None without draws."""

    def document(self) -> dict[str, Any]:
        first = next(iter(self.fits.values()))
        return {
            "schema": "scalecli/arms/1",
            "law": first.law.name,
            "column": self.column,
            "shared": {name: first.document()["parameters"][name] for name in self.shared},
            "alone": {arm: dict(found) for arm, found in self.alone.items()},
            "p_value": self.p_value,
            "arms": {arm: fit.document() for arm, fit in self.fits.items()},
            "warnings": [{"code": notice.code, "message": notice.message} for notice in self.notices()],
        }

    def notices(self) -> list[Notice]:
        told = list(next(iter(self.fits.values())).warnings)
        if self.p_value is not None and self.p_value < DIFFERENT:
            told.append(
                Notice(
                    "W-EXPONENTS-DIFFER",
                    f"fitted apart, the exponents of the arms differ by more than chance (p = {self.p_value:.2g}): "
                    "sharing them is not supported by these runs",
                )
            )
        return told


def fit_arms(
    table: RunTable,
    law: type[Any],
    column: str,
    *,
    shared: Sequence[str] | None = None,
    group: str | None = None,
    options: FitOptions | None = None,
) -> Arms:
    """Fit a law to every arm, a kind of `column`, with the `shared` parameters in common (its exponents).

    Raises `DataError` for a law or parameters that cannot be shared, `TooFewRuns` for an arm with too few runs
    for what is its own, and what `fit_runs` raises.
    """
    options = options or FitOptions()
    common = _shared(law, shared)
    table = table.with_derived(columns_of(law))
    labels = table.groups(column)
    arms = [str(arm) for arm in np.unique(labels.astype(str))]
    _check(table, law, column, labels, arms, common)
    needed = table.columns(columns_of(law))
    x = {name: needed[name] for name in law.inputs}
    rows = {arm: labels == arm for arm in arms}
    flags = {_flag(i): rows[arm].astype(float) for i, arm in enumerate(arms)}
    clusters, chosen = group_labels(table, law, group)
    own = np.arange(len(table)) if clusters is None else clusters
    joint = fit_law(
        joint_law(law, len(arms), common),
        x | flags,
        needed[law.output],
        groups=np.array([f"{arm}/{which}" for arm, which in zip(labels, own, strict=True)]),
        loss_std=loss_std_of(table, law),
        options=replace(options, diagnose=False),
        provenance={"data_sha256": table.sha256, "source": table.source, "grouped_by": chosen},
        rows_read=table.rows_read,
        dropped=[(drop.reason, drop.count) for drop in table.dropped],
    )
    joint = replace(joint, warnings=tuple(_named(notice, arms) for notice in joint.warnings))
    parts = {arm: table.only(rows[arm], "another arm") for arm in arms}
    alone = {
        arm: replace(estimate_runs(part, law, options), clusters=Clusters.of(own[rows[arm]], len(part)))
        for arm, part in parts.items()
    }
    return Arms(
        column=column,
        shared=common,
        fits={arm: _own_fit(joint, law, common, i, parts[arm], arm) for i, arm in enumerate(arms)},
        alone={
            arm: {name: float(found.raw[names(law).index(name)]) for name in common}
            for arm, found in alone.items()
        },
        p_value=_same_exponents(list(alone.values()), common, options),
    )


def joint_law(law: type[Any], arms: int, shared: Sequence[str]) -> type[Any]:
    """The law with everything but the shared parameters once an arm; columns `arm_i` say which a row belongs to."""
    own = [name for name in names(law) if name not in shared]
    fields = [(name, parameters(law)[name]) for name in shared]
    fields += [(_own(name, i), parameters(law)[name]) for i in range(arms) for name in own]
    order = [name for name, _ in fields]

    def of_arm(self: Any, i: int) -> Any:
        return law(**{name: getattr(self, name if name in shared else _own(name, i)) for name in names(law)})

    def predict(self: Any, x: Columns) -> Array:
        return np.asarray(sum(x[_flag(i)] * of_arm(self, i).predict(x) for i in range(arms)))

    def gradient(self: Any, x: Columns) -> Array:
        parts = [x[_flag(i)][:, None] * of_arm(self, i).gradient(x) for i in range(arms)]
        found = np.zeros((*np.broadcast_shapes(*(part.shape[:-1] for part in parts)), len(order)))
        for i, part in enumerate(parts):
            for place, name in enumerate(names(law)):
                found[..., order.index(name if name in shared else _own(name, i))] += part[..., place]
        return found

    namespace: dict[str, Any] = {
        "__doc__": f"{law.__doc__}",
        "name": law.name,
        "inputs": (*law.inputs, *(_flag(i) for i in range(arms))),
        "output": law.output,
        "sources": law.sources,
        "predict": predict,
        "gradient": gradient,
    }
    if isinstance(law, PowerSum):
        namespace["terms"] = tuple(
            Term(_own(term.scale, i), term.falls, term.rises, only=_flag(i))
            for i in range(arms)
            for term in law.terms
        )
    annotated = [(name, Annotated[float, mark]) for name, mark in fields]
    return make_dataclass("JointLaw", annotated, namespace=namespace, frozen=True, slots=True, kw_only=True)


def _own(name: str, arm: int) -> str:
    return f"{name}__{arm}"


def _flag(arm: int) -> str:
    return f"arm_{arm}"


def _named(notice: Notice, arms: Sequence[str]) -> Notice:
    """The warning with parameters of single arms called as a user knows them."""
    message = notice.message
    for i, arm in reversed(list(enumerate(arms))):
        message = message.replace(_own("", i), f" of {arm}")
    return Notice(notice.code, message)


def _shared(law: type[Any], wanted: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(law, EstimatedLaw) or law.output != measured_column(law):
        raise DataError(f"{law.name} is a procedure: its arms share no parameters", hint="fit each arm alone")
    common = tuple(exponents_of(law) if wanted is None else wanted)
    unknown = [name for name in common if name not in names(law)]
    scales: list[str] = [term.scale for term in law.terms] if isinstance(law, PowerSum) else []
    if unknown or not common:
        raise DataError(
            f"{law.name} has no parameter {', '.join(unknown) or 'to share'}; it has {', '.join(names(law))}"
        )
    if set(common) & set(scales):
        raise DataError(
            f"{law.name} shares exponents between arms, not scales ({', '.join(set(common) & set(scales))})",
            hint=f"--share {','.join(exponents_of(law))}",
        )
    return common


def _check(
    table: RunTable, law: type[Any], column: str, labels: Array, arms: Sequence[str], shared: Sequence[str]
) -> None:
    if not 2 <= len(arms) <= MOST_ARMS:
        raise DataError(
            f"{column} has {len(arms)} kinds in {table.source}; 2 to {MOST_ARMS} arms share a fit",
            hint="--where leaves out those that are not compared",
        )
    least = len(names(law)) - len(shared) + 1
    for arm in arms:
        count = int((labels == arm).sum())
        if count < least:
            raise TooFewRuns(
                f"arm {arm} has {count} usable runs; what is its own of {law.name} takes {least}",
                hint=f"--where \"{column} != '{arm}'\" leaves it out",
            )


def _own_fit(joint: Fit, law: type[Any], shared: Sequence[str], i: int, table: RunTable, arm: str) -> Fit:
    """The arm's part of the joint fit, as a fit of the law itself."""
    order = names(type(joint.law))
    places = [order.index(name if name in shared else _own(name, i)) for name in names(law)]
    point = np.array([getattr(joint.law, order[place]) for place in places])
    x = table.columns(law.inputs)
    speed = Speed.of_runs(table)
    return replace(
        joint,
        law=with_values(law, point),
        draws=joint.draws[:, places],
        domain=domain_of(law, x),
        rows={
            "read": table.rows_read,
            "used": len(table),
            "dropped": [{"reason": drop.reason, "count": drop.count} for drop in table.dropped],
        },
        provenance={
            **joint.provenance,
            "setup": setup_of(table),
            "speed": None if speed is None else speed.document(),
            "arm": arm,
            "shared": list(shared),
        },
    )


def _same_exponents(alone: Sequence[Estimate], shared: Sequence[str], options: FitOptions) -> float | None:
    """The p-value of the arms' exponents, each fitted alone, around their common mean (Wald)."""
    from scipy.special import chdtrc

    if not options.draws:
        return None
    places = [names(alone[0].law).index(name) for name in shared]
    points, weights = [], []
    for i, found in enumerate(alone):
        drawn = found.draws(min(options.draws, 300), np.random.default_rng([options.seed, i]))[:, places]
        drawn = drawn[np.isfinite(drawn).all(1)]
        points.append(found.raw[places])
        weights.append(np.linalg.pinv(np.atleast_2d(np.cov(drawn, rowvar=False))))
    mean = np.linalg.pinv(sum(weights)) @ sum(w @ p for w, p in zip(weights, points, strict=True))
    apart = [point - mean for point in points]
    statistic = sum(float(gap @ weight @ gap) for gap, weight in zip(apart, weights, strict=True))
    return float(chdtrc((len(alone) - 1) * len(shared), statistic))
