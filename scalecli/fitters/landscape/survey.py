"""What a grid can and cannot say, setting by setting: vertices, edges, divergence, and warnings from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scalecli.data.notes import Notice
from scalecli.fitters.identify import TIED_CORRELATION
from scalecli.fitters.landscape.edges import OUTERMOST, missing_side
from scalecli.fitters.landscape.settings import Settings, group_settings, label_settings
from scalecli.fitters.landscape.vertex import Vertices, find_vertices, levels
from scalecli.fitters.law import Array, Columns

FEW_SETTINGS = 5
"""Three parameters of a power law, and something left to check it with."""

UNIT_GAP = 64.0
"""A factor between neighbouring batches that no grid has, but sequences mixed with tokens do."""

MOST_STEPS = 3e6
"""Nobody trains for longer; a batch column in sequences makes it look so."""

AXES = {"learning_rate": "learning rate", "batch_tokens": "batch"}


@dataclass(frozen=True, slots=True)
class SettingReport:
    """One (params, tokens): its runs and their optimum.

    `learning_rate`, `batch_tokens` and `loss` are the vertex, None where the runs show none. `missing` maps
    an axis to the side ("below", "above") on which runs are missing: the best run is the outermost there,
    and nothing diverged beyond it; or all diverged.
    """

    params: float
    tokens: float
    runs: int
    diverged: int
    learning_rate: float | None
    batch_tokens: float | None
    loss: float | None
    missing: dict[str, str]

    @property
    def all_diverged(self) -> bool:
        return self.diverged == self.runs


def survey(x: Columns, y: Array) -> list[SettingReport]:
    """A report for each setting. Losses that are not finite are runs that diverged; raises as `group_settings`."""
    finished = np.isfinite(y)
    label = label_settings(x)
    settings = group_settings({name: column[finished] for name, column in x.items()}, y[finished])
    vertices = find_vertices(settings, np.ones((1, settings.loss.size)))
    located = {s: i for i, s in enumerate(np.unique(label[finished]))}
    reports = []
    for s in range(int(label.max()) + 1):
        rows, place = label == s, located.get(s)
        rate, batch, loss = (None, None, None) if place is None else _vertex(vertices, place)
        reports.append(
            SettingReport(
                params=float(np.median(x["params"][rows])),
                tokens=float(np.median(x["tokens"][rows])),
                runs=int(rows.sum()),
                diverged=int((rows & ~finished).sum()),
                learning_rate=rate,
                batch_tokens=batch,
                loss=loss,
                missing=_missing({axis: x[axis][rows] for axis in AXES}, y[rows]),
            )
        )
    return reports


def _vertex(vertices: Vertices, setting: int) -> tuple[float | None, float | None, float | None]:
    """Rate, batch and loss, None where there is none."""
    rate, batch, loss = (v[0, setting] for v in (vertices.log_rate, vertices.log_batch, vertices.loss))
    return (
        float(np.exp(rate)) if np.isfinite(rate) else None,
        float(np.exp(batch)) if np.isfinite(batch) else None,
        float(loss) if np.isfinite(loss) else None,
    )


def _missing(tried: Mapping[str, Array], loss: Array) -> dict[str, str]:
    if not np.isfinite(loss).any():
        return {"learning_rate": "below"}
    return {axis: side for axis, values in tried.items() if (side := missing_side(np.log(values), loss))}


def settings_notices(x: Columns, y: Array) -> list[Notice]:
    """Warnings about a grid that is going to be fitted."""
    reports, settings = survey(x, y), group_settings(x, y)
    return [
        *_diverged(reports),
        *_edges(reports),
        *_axes(settings),
        *_units(x),
    ]


def _diverged(reports: list[SettingReport]) -> Iterator[Notice]:
    lost = [report for report in reports if report.all_diverged]
    if lost:
        yield Notice(
            "W-ALL-DIVERGED",
            f"all {sum(r.runs for r in lost)} runs diverged in {len(lost)} of {len(reports)} settings "
            f"({_place(lost[0])}): add lower learning rates there",
        )


def _edges(reports: list[SettingReport]) -> Iterator[Notice]:
    for axis, called in AXES.items():
        for side, advice in (("below", "add lower ones"), ("above", "add higher ones, unless those diverge")):
            edge = [r for r in reports if r.missing.get(axis) == side and not r.all_diverged]
            if edge:
                yield Notice(
                    f"W-EDGE-{called.replace(' ', '-').upper()}",
                    f"in {len(edge)} of {len(reports)} settings the best run has the "
                    f"{OUTERMOST[side]} {called} tried ({_place(edge[0])}): "
                    f"{advice}",
                )


def _axes(settings: Settings) -> Iterator[Notice]:
    if settings.count < FEW_SETTINGS:
        yield Notice(
            "W-FEW-SETTINGS",
            f"{settings.count} (params, tokens) settings: nothing checks how the optimum moves with scale",
        )
    in_setting = [settings.label == s for s in range(settings.count)]
    axes = {
        "params": levels(settings.log_params),
        "tokens": levels(settings.log_tokens),
        "batch_tokens": max(levels(settings.log_batch[rows]) for rows in in_setting),
        "learning_rate": max(levels(settings.log_rate[rows]) for rows in in_setting),
    }
    if axes["batch_tokens"] == 1:
        yield Notice(
            "W-ONE-BATCH",
            "every setting was trained at one batch size only: the optimal batch is not identified, and the "
            "learning rate is the best at the batch that was used",
        )
    for name, count in axes.items():
        if count == 2:
            yield Notice("W-TWO-LEVELS", f"{name} takes two levels only: nothing checks how it enters")
        elif count == 1 and name in ("params", "tokens"):
            yield Notice("W-ONE-LEVEL", f"{name} takes one value: its exponents are zero, not measured")
    if min(np.ptp(settings.log_params), np.ptp(settings.log_tokens)) > 0:
        correlation = float(np.corrcoef(settings.log_params, settings.log_tokens)[0, 1])
        if abs(correlation) > TIED_CORRELATION:
            yield Notice(
                "W-TIED-INPUTS",
                f"log params and log tokens are correlated to {correlation:.3f} over the settings: only their "
                "common effect is measured; train some settings at other tokens per parameter",
            )


def _units(x: Columns) -> Iterator[Notice]:
    batch, steps = np.unique(x["batch_tokens"]), float((x["tokens"] / x["batch_tokens"]).max())
    gap = float((batch[1:] / batch[:-1]).max()) if batch.size > 1 else 1.0
    if gap > UNIT_GAP or steps > MOST_STEPS:
        yield Notice(
            "W-BATCH-UNIT",
            f"batch_tokens runs from {batch.min():g} to {batch.max():g} with a gap of a factor {gap:.0f}, and up to "
            f"{steps:.2g} steps: sequences and tokens may be mixed up (--unit batch_tokens=SEQUENCE_LENGTH "
            "converts a column)",
        )


def _place(report: SettingReport) -> str:
    return f"such as params {report.params:.3g}, tokens {report.tokens:.3g}"
