"""What a paper has to say about a fit so that others can repeat it, filled in from the fit itself.

The list is that of Li et al. 2025, (Mis)Fitting, section 6: form, data, what N, D and C count, rows left out,
objective, optimizer, starts, bounds, uncertainty, code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scalecli.fitters.law import EstimatedLaw, measured_column, parameters, required_columns
from scalecli.fitters.resample import FEW_CLUSTERS

if TYPE_CHECKING:
    from scalecli.fitters.fit import Fit

SOURCE = "misfitting2025"

COUNTS = {
    "params": "all trainable weights, embeddings and head included, frozen weights not",
    "params_non_embedding": "weights without input embedding and head",
    "params_active": "weights one token passes through",
    "tokens": "tokens trained on, repetitions counted",
    "unique_tokens": "distinct tokens in the training set",
    "flops": "training compute as recorded; 6 N D where it was computed",
    "batch_tokens": "tokens in one optimizer step",
    "steps": "optimizer steps",
}


def checklist(fit: Fit, formula: str) -> dict[str, Any]:
    """The checklist of a fit whose law has this formula."""
    law = type(fit.law)
    rows = fit.rows
    return {
        "source": SOURCE,
        "form": formula,
        "measured": measured_column(law),
        "columns": {name: COUNTS.get(name, "as in the run table") for name in required_columns(law)},
        "data": {
            "sha256": fit.provenance.get("data_sha256"),
            "source": fit.provenance.get("source"),
            "rows_used": rows["used"],
            "rows_left_out": rows["read"] - rows["used"],
            "range": {name: list(span) for name, span in fit.domain.items()},
            "setup": fit.provenance.get("setup", {}),
        },
        "objective": {**fit.objective, "reduction": "sum over rows"},
        "optimizer": _optimizer(law),
        "starts": fit.convergence["starts"],
        "starts_that_agree": fit.convergence["agree"],
        "bounds": {name: [mark.low, mark.high] for name, mark in parameters(law).items()},
        "status": fit.status.value,
        "uncertainty": _uncertainty(fit),
        "validation": "hold-out by scale" if fit.validation is not None else None,
        "seed": fit.provenance.get("seed"),
        "code": fit.provenance.get("versions", {}),
    }


def _optimizer(law: type[Any]) -> str:
    if isinstance(law, EstimatedLaw):
        return "a procedure, no search"
    return "variable projection over the exponents, then damped Newton steps within the bounds"


def _uncertainty(fit: Fit) -> dict[str, Any]:
    few = fit.groups < FEW_CLUSTERS and not isinstance(type(fit.law), EstimatedLaw)
    return {
        "method": "wild cluster bootstrap (Webb)" if few else "cluster bootstrap by weights",
        "clusters": fit.groups,
        "clustered_by": fit.provenance.get("grouped_by"),
        "draws": len(fit.draws),
        "interval": fit.interval,
        "prediction_intervals": "split conformal, ordered by compute" if fit.band.multiplier else None,
    }
