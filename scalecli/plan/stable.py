"""Largest stable learning rates that probes measured, read from their documents as ceilings for a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scalecli.errors import PlanError
from scalecli.plan.ceiling import RateCeiling
from scalecli.plan.rules.setting import Setting

# The documents that have a `stable` key: the setting of the probe with its largest stable rate, and how it was found.
SCHEMAS = ("scalecli/probe-lr/1", "scalecli/probe-stability/1", "scalecli/probe-curvature/1")


def rate_ceilings(paths: Sequence[Path]) -> tuple[RateCeiling, ...]:
    """One ceiling a document. `PlanError` for a file that is none of these, or that found no limit."""
    return tuple(_ceiling(path) for path in paths)


def _ceiling(path: Path) -> RateCeiling:
    document = _read(path)
    stable = document.get("stable")
    if document.get("schema") not in SCHEMAS or not isinstance(stable, Mapping):
        raise PlanError(
            f"{path} is no document of a probe that says what is stable",
            hint="`scalecli probe stability --out stability.json`, or `probe curvature`, `probe lr`",
        )
    names = ("batch_tokens", "learning_rate", "params", "tokens")
    setting = Setting(**{name: float(stable[name]) for name in names}, optimizer=str(stable["optimizer"]))
    return RateCeiling(setting=setting, reason=str(stable["reason"]), source=path.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise PlanError(f"{path} cannot be read as JSON: {error}", hint="write it with --out") from error
    return document if isinstance(document, dict) else {}
