"""From a run table to a fit: which columns, which clusters, and what the runs held fixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.notes import Notice
from scalecli.data.schema import COLUMNS
from scalecli.data.tables import RunTable
from scalecli.errors import DataError, FitError
from scalecli.fitters.checks import definitions
from scalecli.fitters.checks.frontier import untuned_runs
from scalecli.fitters.checks.proxies import small_proxies
from scalecli.fitters.checks.repeats import checkpoint_rows, copied_rows
from scalecli.fitters.checks.rising import rising_values
from scalecli.fitters.checks.subsets import subsets_of
from scalecli.fitters.checks.unread import tied_columns, unread_columns
from scalecli.fitters.estimate import Estimate, Method, estimate
from scalecli.fitters.fit import Fit, FitOptions, check_options, fit_law
from scalecli.fitters.identify import check_runs
from scalecli.fitters.landscape.runs import read_grid
from scalecli.fitters.law import (
    Array,
    ClusteredLaw,
    EstimatedLaw,
    GridLaw,
    measured_column,
    required_columns,
)
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.resample import Clusters
from scalecli.fitters.speed import Speed
from scalecli.fitters.weights import row_weights

RECIPE = (
    "optimizer", "beta1", "beta2", "epsilon", "weight_decay", "grad_clip", "schedule", "decay_fraction",
    "parametrization", "sequence_length", "tokenizer", "dataset", "loss_kind", "dtype", "vocab_size",
    "base_width", "definition",
)  # fmt: skip
"""Columns of the recipe: an optimum holds for the values that the runs shared."""

TUNED = ("learning_rate", "batch_tokens")
"""Settings that grids vary on purpose; where all runs share one, it is part of their set-up."""

UNPOOLED = ("loss_kind", "tokenizer", "architecture", "family")
"""Runs that differ in these follow laws of their own: losses of another kind or unit are another quantity, and
architectures scale differently (Tay et al. 2022), so that one law is fitted to one of them."""

FAMILY_SOURCE = "tay2022"

SAME_SHARE = 0.02
"""Shares within 2 % of each other are one setting."""

NO_GROUPS = "none"


def columns_of(law: type[Any]) -> list[str]:
    """The run columns that fitting this law takes."""
    return list(dict.fromkeys([*required_columns(law), measured_column(law)]))


def fit_runs(
    table: RunTable, law: type[Any], *, group: str | None = None, options: FitOptions | None = None
) -> Fit:
    """Fit a law to a run table.

    Rows that share `group` are resampled together. Without it that is the column `group` if there is one,
    else the model size, because runs of one model share its shape and its tuning; procedures resample rows.
    The group `none` makes every row stand alone. `loss_std` weighs the rows where every row has one.

    Raises what `fit_law` raises, and `BadRow` for a value that cannot be used.
    """
    require_one_family(table)
    table = table.with_derived(columns_of(law))
    x, y, diverged = _read(table, law)
    clusters, chosen = group_labels(table, law, group)
    speed = Speed.of_runs(table)
    provenance = {
        "data_sha256": table.sha256,
        "source": table.source,
        "grouped_by": chosen,
        "setup": setup_of(table),
        "speed": None if speed is None else speed.document(),
        "notes": [{"code": note.code, "message": note.message} for note in table.notes],
    }
    found = fit_law(
        law,
        x,
        y,
        groups=clusters,
        loss_std=loss_std_of(table, law),
        diverged=diverged,
        options=options,
        provenance=provenance,
        rows_read=table.rows_read,
        dropped=[(drop.reason, drop.count) for drop in table.dropped],
        subsets=subsets_of(table, law),
    )
    columns = x | {measured_column(law): y}
    labels = law.clusters(columns) if isinstance(law, ClusteredLaw) else clusters
    told = table_notices(table, found, columns, Clusters.of(labels, len(y)))
    mixed = mixed_recipes(table) if isinstance(law, GridLaw) else ()
    found = replace(found, warnings=(*found.warnings, *told, *mixed))
    return _with_definitions(found, table, law, options or FitOptions())


def table_notices(
    table: RunTable, found: Fit, columns: Mapping[str, Array], clusters: Clusters
) -> Iterator[Notice]:
    """What the run table says against a fit to it: units, rows, columns that were not read."""
    law = type(found.law)
    units = {note.code for note in table.notes}
    yield from table.notes
    if "W-UNIT" not in units:  # sizes in millions are small for no other reason
        yield from small_proxies(table)
    yield from copied_rows(table, law)
    yield from checkpoint_rows(table, law)
    untuned = list(untuned_runs(table, law))
    yield from untuned
    yield from tied_columns(table, law)
    if law.output == measured_column(law):
        measured = columns[law.output]
        if "W-METRIC" not in units:
            yield from rising_values(law, columns, measured)
        with np.errstate(all="ignore"):
            residual = np.log(measured / found.law.predict(columns))
        if np.isfinite(residual).all() and not untuned:
            yield from unread_columns(table, law, residual, clusters.label)


def _with_definitions(found: Fit, table: RunTable, law: type[Any], options: FitOptions) -> Fit:
    """The fit with what other counts of parameters and FLOPs would have made of it."""
    if not options.diagnose:
        return found
    reports = []
    for label, other in definitions.other_definitions(table, law):
        with suppress(
            FitError, DataError
        ):  # a count under which the law has no fit says nothing about this one
            reports.append(definitions.report(found, label, estimate_runs(other, law, options)))
    told = tuple(definitions.notices(found, reports))
    return replace(
        found,
        warnings=found.warnings + told,
        diagnostics={**found.diagnostics, "definitions": reports},
    )


def require_one_family(table: RunTable) -> None:
    """Raise `DataError` for runs that no single law describes."""
    for name in UNPOOLED:
        if name in table.frame.columns:
            kinds = sorted(str(kind) for kind in table.frame[name].dropna().unique())
            if len(kinds) > 1:
                raise DataError(
                    f"the runs have {len(kinds)} kinds of {name} ({', '.join(kinds[:4])}): they are not pooled "
                    f"into one law ({FAMILY_SOURCE})",
                    hint=f"--where \"{name} == '{kinds[0]}'\", one fit each; scalecli compare sets them side by side",
                )


def _read(table: RunTable, law: type[Any]) -> tuple[dict[str, Array], Array, dict[str, Array] | None]:
    """What the law is fitted to, (rows,) each: its inputs, the measured values, and inputs of runs that diverged."""
    if not isinstance(law, GridLaw):
        columns = table.columns(columns_of(law))
        return {name: columns[name] for name in required_columns(law)}, columns[measured_column(law)], None
    x, y = read_grid(table)
    finished = np.isfinite(y)
    used, lost = ({name: column[rows] for name, column in x.items()} for rows in (finished, ~finished))
    return used, y[finished], lost


def mixed_recipes(table: RunTable) -> Iterator[Notice]:
    """A warning when one optimum is going to be fitted to runs of several recipes."""
    agreed = setup_of(table)
    for name in (name for name in RECIPE if name not in agreed):
        said = Counter(table.frame[name].dropna()) if name in table.frame.columns else Counter()
        if len(said) > 1:
            counted = ", ".join(f"{value} in {count}" for value, count in said.most_common(4))
            yield Notice(
                "W-MIXED-RECIPE",
                f"the runs differ in {name} ({counted} runs{', ...' if len(said) > 4 else ''}): the optimum is one for "
                f"all of them; --where keeps the runs of one {name}",
            )


def estimate_runs(table: RunTable, law: type[Any], options: FitOptions) -> Estimate:
    """The point estimate alone: what a fit costs without its draws and checks. Raises as `fit_runs` does."""
    check_options(law, options)
    require_one_family(table)
    x, y, _ = _read(table.with_derived(columns_of(law)), law)
    check_runs(law, x, y, options.pins)
    data = Data(x, y, row_weights(x, y, loss_std_of(table, law)).rows)
    method = Method(row_loss(LossName(options.loss), options.delta), options.pins)
    return estimate(law, data, Clusters.of(None, len(y)), method)


def group_labels(table: RunTable, law: type[Any], group: str | None) -> tuple[NDArray[Any] | None, str]:
    if group == NO_GROUPS:
        return None, NO_GROUPS
    if group is not None:
        return table.groups(group), group
    if "group" in table.frame.columns and not isinstance(law, EstimatedLaw):
        return table.groups("group"), "group"
    size = next((name for name in required_columns(law) if name.startswith("params")), None)
    if size is None or isinstance(law, EstimatedLaw):
        return None, NO_GROUPS
    return table.columns([size])[size], size


def loss_std_of(table: RunTable, law: type[Any]) -> NDArray[np.float64] | None:
    """The measured noise of every row, or None unless all rows have one."""
    if measured_column(law) != "loss" or "loss_std" not in table.frame.columns:
        return None
    if table.frame["loss_std"].isna().any():
        return None
    return table.columns(["loss_std"])["loss_std"]


def setup_of(table: RunTable) -> dict[str, Any]:
    """The recipe columns on which all runs agree, and warm-up and final rate as shares of run and peak.

    `params_kind` is there where `params` holds another count than that of all weights.
    """
    fixed: dict[str, Any] = {} if table.params_kind is None else {"params_kind": table.params_kind}
    for name in (*RECIPE, *TUNED):
        if name in table.frame.columns:
            said = table.frame[name].dropna().unique()
            if len(said) == 1:
                fixed[name] = float(said[0]) if COLUMNS[name].kind == "number" else str(said[0])
    fixed |= _agreed(table, "warmup_fraction", "warmup_steps", "steps", whole_steps=True)
    fixed |= _agreed(table, "final_learning_rate_fraction", "final_learning_rate", "learning_rate")
    frame = table.frame
    if "decay_fraction" not in fixed and {"decay_fraction", "steps"} <= set(frame.columns):
        lowered = replace(table, frame=frame.assign(_decay=frame["decay_fraction"] * frame["steps"]))
        fixed |= _agreed(lowered, "decay_fraction", "_decay", "steps", whole_steps=True)
    if "warmup_fraction" not in fixed and {"params", "batch_tokens"} <= set(frame.columns):
        sized = replace(table, frame=frame.assign(_steps=frame["params"] / frame["batch_tokens"]))
        fixed |= _agreed(sized, "warmup_tokens_per_param", "warmup_steps", "_steps", whole_steps=True)
    return fixed


def _agreed(
    table: RunTable, share: str, part: str, whole: str, *, whole_steps: bool = False
) -> dict[str, float]:
    """`share` = part / whole where all runs have the same one, rounding to `whole_steps` of the part allowed."""
    if not {part, whole} <= set(table.frame.columns) or table.frame[[part, whole]].isna().any(axis=None):
        return {}
    numerator, denominator = (table.frame[name].to_numpy(dtype=float) for name in (part, whole))
    middle = float(np.median(numerator / denominator))
    slack = np.maximum(1.0, SAME_SHARE * numerator) if whole_steps else SAME_SHARE * np.abs(numerator).max()
    return {share: middle} if (np.abs(numerator - middle * denominator) <= slack).all() else {}


def points_of(table: RunTable, inputs: Sequence[str]) -> list[dict[str, float]]:
    """The rows of a table of points as law inputs, as far as it has them."""
    columns = table.columns([name for name in inputs if name in table.frame.columns])
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(table))]
