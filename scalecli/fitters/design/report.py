"""The document of `scalecli design`, and its runs as a sweep's specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.design.answer import Answer, answer_of
from scalecli.fitters.design.candidates import Candidates, candidates_for
from scalecli.fitters.design.edges import edge_runs
from scalecli.fitters.design.plans import usual_plans
from scalecli.fitters.design.select import Information, choose_settings, information
from scalecli.fitters.domain import SIZES
from scalecli.fitters.fit import Fit
from scalecli.fitters.speed import Speed

MOST_SETTINGS = 15
"""As many as the isoFLOP plan has; a setting is one run, or a landscape's grid of batches and rates."""

LARGEST_SHARE = 0.25
"""Of the budget, for one setting: a design of a single one could not tell a law that bends from an unlucky seed."""

EDGE_SHARE = 0.5
"""Of the budget, at most, for runs beyond the edge of a grid."""

LITTLE = 0.1
"""A budget that narrows the interval by a smaller share than this is hardly worth spending."""

SPEC_KEYS = ("params", "tokens", "batch_tokens", "learning_rate")


def design_runs(
    fit: Fit,
    *,
    answer: str,
    at: Mapping[str, float],
    budget: float,
    most: int = MOST_SETTINGS,
    runs: RunTable | None = None,
    speed: Speed | None = None,
    level: float | None = None,
) -> dict[str, Any]:
    """The runs that make the answer at the target surest for `budget` FLOPs, beside isoFLOP and ladder plans.

    `runs` is the table that the fit came from: settings whose optimum lies at the edge of their grid get
    runs beyond it first. `speed` turns costs into device-hours; without one the fit's own is taken, if it knows
    one. Raises `DataError` and `FitError`.
    """
    level = fit.interval if level is None else level
    speed = speed or Speed.of_provenance(fit.provenance)
    asked = answer_of(fit, answer, at)
    edges = _within([] if runs is None else edge_runs(runs), EDGE_SHARE * budget)
    left = budget - sum(run["flops"] for run in edges)
    candidates = candidates_for(fit, LARGEST_SHARE * left)
    plans = [_best_plan(fit, asked, candidates, left, most, level, speed)]
    plans += [_plan(name, fit, asked, usual, level, speed) for name, usual in usual_plans(fit, left).items()]
    best = min(plans, key=lambda plan: float(plan["width"]))
    low, high = asked.interval(level)
    width = float(np.log(high / low))
    return {
        "schema": "scalecli/design/1",
        "law": fit.law.name,
        "answer": {
            "name": asked.name,
            "at": dict(at),
            "unit": asked.unit,
            "value": asked.value,
            "low": low,
            "high": high,
            "width": width,
        },
        "budget_flops": budget,
        "flops_per_second": None if speed is None else speed.largest,
        "interval": level,
        "edges": [_with_hours(run, speed) for run in edges],
        "plans": plans,
        "best": best["name"],
        "runs": [_with_hours(run, speed) for run in edges] + best["runs"],
        "warnings": [{"code": n.code, "message": n.message} for n in _notices(fit, asked, runs, best, width)],
    }


def design_edges(
    runs: RunTable, *, budget: float | None = None, speed: Speed | None = None
) -> dict[str, Any]:
    """The runs beyond the edges of a grid alone, for a table that no landscape can be fitted to yet.

    The keys of `design_runs`, without an answer and plans for it. Raises `DataError` where no best run is at an edge,
    or none beyond one fits the budget.
    """
    found = edge_runs(runs)
    edges = found if budget is None else _within(found, budget)
    if not edges:
        raise DataError(
            f"none of {len(found)} runs beyond an edge fits into {budget:.3g} FLOPs"
            if found
            else f"in no setting of {runs.source} the best run lies at the edge of the tried rates and batches",
            hint="raise --budget" if found else "fit a landscape, and design with --fit and --at",
        )
    return {
        "schema": "scalecli/design/1",
        "law": None,
        "answer": None,
        "budget_flops": budget,
        "flops_per_second": None if speed is None else speed.largest,
        "interval": None,
        "edges": [_with_hours(run, speed) for run in edges],
        "plans": [],
        "best": "edges",
        "runs": [_with_hours(run, speed) for run in edges],
        "warnings": [],
    }


def sweep_spec_text(runs: Sequence[Mapping[str, float]]) -> str:
    """The runs as a TOML file for `scalecli probe sweep --spec`: one `[[runs]]` table each.

    Raises `DataError` for runs without params and tokens.
    """
    if any(not {"params", "tokens"} <= run.keys() for run in runs):
        raise DataError("a sweep needs params and tokens of every run, and this design has other columns")
    tables = [
        "\n".join(["[[runs]]", *(f"{name} = {run[name]:.6g}" for name in SPEC_KEYS if name in run)])
        for run in runs
    ]
    return "\n\n".join(tables)


def _best_plan(
    fit: Fit,
    asked: Answer,
    candidates: Candidates,
    budget: float,
    most: int,
    level: float,
    speed: Speed | None,
) -> dict[str, Any]:
    known = information(fit, asked, candidates)
    chosen = choose_settings(known, candidates.flops, budget, most)
    return _document("information", asked, candidates.take(np.array(chosen)), known, chosen, level, speed)


def _plan(
    name: str, fit: Fit, asked: Answer, usual: Candidates, level: float, speed: Speed | None
) -> dict[str, Any]:
    known = information(fit, asked, usual)
    return _document(name, asked, usual, known, list(range(len(usual))), level, speed)


def _document(
    name: str,
    asked: Answer,
    runs: Candidates,
    known: Information,
    chosen: list[int],
    level: float,
    speed: Speed | None,
) -> dict[str, Any]:
    shrink = float(np.sqrt(known.after(chosen) / known.answer))
    low, high = asked.interval(level, shrink)
    return {
        "name": name,
        "flops": float(runs.flops.sum()),
        "low": low,
        "high": high,
        "width": float(np.log(high / low)),
        "runs": [_with_hours(run, speed) for run in runs.runs()],
    }


def _with_hours(run: dict[str, float], speed: Speed | None) -> dict[str, float]:
    size = next((run[name] for name in SIZES if name in run), None)
    return run if speed is None or size is None else run | {"hours": float(speed.hours(run["flops"], size))}


def _within(runs: list[dict[str, float]], budget: float) -> list[dict[str, float]]:
    """The cheapest runs that fit into the budget."""
    spent = np.cumsum([run["flops"] for run in runs])
    return runs[: int((spent <= budget).sum())]


def _notices(
    fit: Fit, asked: Answer, runs: RunTable | None, best: dict[str, Any], width: float
) -> list[Notice]:
    notices = []
    edges = [notice for notice in fit.warnings if notice.code.startswith("W-EDGE")]
    if edges and runs is None:
        notices.append(
            Notice(
                edges[0].code,
                f"{edges[0].message}; give --runs with the table of the fit and the design adds them",
            )
        )
    lost = len(asked.kept) - int(asked.kept.sum())
    if lost:
        notices.append(
            Notice("W-DRAWS-LOST", f"the {asked.name} has no answer in {lost} of {len(asked.kept)} draws")
        )
    if best["width"] > (1 - LITTLE) * width:
        notices.append(
            Notice(
                "W-LITTLE-GAIN",
                "this budget narrows the interval by less than a tenth: runs this small say little about it",
            )
        )
    return notices
