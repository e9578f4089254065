"""A fit as a JSON document, and back. Strict JSON: no NaN, no infinity, nothing that can run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from scalecli.data.notes import Notice
from scalecli.errors import DataError
from scalecli.fitters.calibrate import Band, Validation
from scalecli.fitters.checklist import checklist
from scalecli.fitters.formula import formula_law
from scalecli.fitters.law import Array, names, with_values
from scalecli.fitters.laws import law_named
from scalecli.fitters.reach import Reach

if TYPE_CHECKING:
    from scalecli.fitters.fit import Fit

SCHEMA = "scalecli/fit/1"


def formula_of(law: type[Any]) -> str:
    """The text of a user's formula; for other laws the first line of their documentation."""
    return str(getattr(law, "formula", None) or (law.__doc__ or law.name).strip().splitlines()[0])


def write_document(fit: Fit, *, draws: bool) -> dict[str, Any]:
    """The document of the command line's contract; `draws` adds what reading it back as a fit takes."""
    law = type(fit.law)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "law": law.name,
        "inputs": list(law.inputs),
        "output": law.output,
        "parameters": {name: _parameter(fit, i) for i, name in enumerate(names(law))},
        "interval": fit.interval,
        "objective": dict(fit.objective),
        "status": fit.status.value,
        "convergence": dict(fit.convergence),
        "rows": dict(fit.rows),
        "groups": fit.groups,
        "validation": None
        if fit.validation is None
        else {
            "heldout_rows": fit.validation.heldout_rows,
            "mean_abs_log_error": fit.validation.mean_abs_log_error,
            "coverage": fit.validation.coverage,
            "reach": {name: asdict(reach) for name, reach in fit.validation.reach.items()},
        },
        "warnings": [{"code": notice.code, "message": notice.message} for notice in fit.warnings],
        "diagnostics": dict(fit.diagnostics),
        "checklist": checklist(fit, formula_of(law)),
        "provenance": dict(fit.provenance),
    }
    if draws:
        document |= {
            "draws": {"parameters": names(law), "values": fit.draws.tolist()},
            "domain": {name: list(span) for name, span in fit.domain.items()},
            "formula": formula_of(law),
            "band": {
                "noise": fit.band.noise.tolist(),
                "multiplier": fit.band.multiplier,
                "fading": fit.band.fading,
                "scales": list(fit.band.scales),
            },
        }
    return document


def _parameter(fit: Fit, which: int) -> dict[str, float | None]:
    name = names(type(fit.law))[which]
    found = fit.query(lambda law: getattr(law, name))
    return {"value": found.value, "low": found.low, "high": found.high, "std": _spread(fit.draws[:, which])}


def _spread(draws: Array) -> float | None:
    """Standard deviation, also of scales whose squares are beyond what numbers hold."""
    if not len(draws):
        return None
    largest = np.abs(draws).max()
    return float(np.std(draws / largest) * largest) if largest else 0.0


def to_json(document: Mapping[str, Any]) -> str:
    """Strict JSON text."""
    return json.dumps(document, allow_nan=False, indent=1)


def from_json(text: str, where: str) -> dict[str, Any]:
    """The document in a text; `DataError` unless it is one strict JSON object."""

    def refuse(constant: str) -> NoReturn:
        raise DataError(f"{where} holds {constant}, which is not JSON", hint="fit again with --out")

    try:
        document = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} is not JSON: {error.msg} in line {error.lineno}", hint="fit again with --out"
        ) from error
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply for a fit") from error
    if not isinstance(document, dict):
        raise DataError(f"{where} is no fit: it holds no JSON object", hint="fit again with --out")
    return document


def read_text(path: Path) -> str:
    """The text of a fit file, with a typed error where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", hint="scalecli fit RUNS --out FILE writes one") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no fit: it is not text") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


class Reader:
    """Takes typed values out of an untrusted document; every mismatch is a `DataError` that names the key."""

    def __init__(self, document: Mapping[str, Any], where: str) -> None:
        self.document = document
        self.where = where

    def wrong(self, key: str, wanted: str) -> NoReturn:
        raise DataError(f"{self.where} is no usable fit: {key} {wanted}", hint="fit again with --out")

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        value: Any = self.document
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                self.wrong(key, "is missing")
            value = value[part]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.wrong(key, f"is {type(value).__name__}, not what a fit has there")
        return value

    def array(self, key: str, shape: tuple[int | None, ...]) -> Array:
        """A finite array of this shape, where None is any length; an empty list is an array of length 0."""
        raw = self.get(key, list)
        try:
            found = np.array(raw, dtype=float)
        except (ValueError, TypeError):
            self.wrong(key, "is not a table of numbers")
        if not raw:
            found = np.empty(tuple(length or 0 for length in (0, *shape[1:])))
        if found.ndim != len(shape) or any(
            length not in (None, have) for length, have in zip(shape, found.shape, strict=True)
        ):
            self.wrong(key, f"has shape {found.shape}")
        if not np.isfinite(found).all():
            self.wrong(key, "holds numbers that are not finite")
        return found

    def law(self) -> type[Any]:
        name = self.get("law", str)
        if name == "formula":
            return formula_law(self.get("formula", str), columns=self.get("inputs", list))
        return law_named(name)


def read_fields(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a `Fit`, from a document that `write_document(draws=True)` made. Raises `DataError`."""
    reader = Reader(document, where)
    if document.get("schema") != SCHEMA:
        reader.wrong("schema", f"is {document.get('schema')!r}, not {SCHEMA!r}")
    if "draws" not in document:
        reader.wrong("draws", "are missing: `fit --json` prints a summary, `fit --out` writes the fit")
    law = reader.law()
    order = names(law)
    if reader.get("draws.parameters", list) != order or list(reader.get("parameters", dict)) != order:
        reader.wrong("parameters", f"are not those of {law.name}: {', '.join(order)}")
    point = np.array([reader.get(f"parameters.{name}.value", (int, float)) for name in order], dtype=float)
    if not np.isfinite(point).all():
        reader.wrong("parameters", "hold numbers that are not finite")
    draws = reader.array("draws.values", (None, len(order)))
    validation = reader.get("validation", (dict, type(None)))
    multiplier = reader.get("band.multiplier", (int, float, type(None)))
    return {
        "law": with_values(law, point),
        "draws": draws,
        "interval": float(reader.get("interval", (int, float))),
        "objective": reader.get("objective", dict),
        "status": reader.get("status", str),
        "convergence": reader.get("convergence", dict),
        "rows": reader.get("rows", dict),
        "groups": reader.get("groups", int),
        "domain": {
            name: cast(tuple[float, float], tuple(reader.array(f"domain.{name}", (2,)).tolist()))
            for name in reader.get("domain", dict)
        },
        "band": Band(
            reader.array("band.noise", (len(draws),)),
            None if multiplier is None else float(multiplier),
            float(reader.get("band.fading", (int, float))),
            cast(tuple[float, float], tuple(reader.array("band.scales", (2,)).tolist())),
        ),
        "validation": None
        if validation is None
        else Validation(
            reader.get("validation.heldout_rows", int),
            float(reader.get("validation.mean_abs_log_error", (int, float))),
            float(reader.get("validation.coverage", (int, float))),
            {name: _reach(reader, name) for name in reader.get("validation.reach", dict)},
        ),
        "warnings": tuple(_notice(reader, item) for item in reader.get("warnings", list)),
        "diagnostics": reader.get("diagnostics", dict),
        "provenance": reader.get("provenance", dict),
    }


def _reach(reader: Reader, name: str) -> Reach:
    ends = (
        reader.get(f"validation.reach.{name}.{end}", (int, float)) for end in ("low", "high", "validated")
    )
    return Reach(*map(float, ends))


def _notice(reader: Reader, item: Any) -> Notice:
    if not isinstance(item, dict) or not {"code", "message"} <= item.keys():
        reader.wrong("warnings", "hold an entry without code and message")
    return Notice(str(item["code"]), str(item["message"]))
