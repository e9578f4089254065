"""The documents of `scalecli validate`."""

from __future__ import annotations

from typing import Any

from scalecli.fitters.fit import FitOptions
from scalecli.fitters.validate.choose import choose_law, validate_all
from scalecli.fitters.validate.score import validate_law
from scalecli.fitters.validate.split import Split


def validation_document(
    split: Split, law: type[Any] | None, group: str | None = None, options: FitOptions | None = None
) -> dict[str, Any]:
    """One law scored; without one, the law is chosen inside the training runs (`choice` says how)."""
    choice = None
    if law is None:
        law, ranking = choose_law(split.train, options)
        choice = ranking.document()
    return {**validate_law(split, law, group=group, options=options).document(), "choice": choice}


def ranking_document(
    split: Split, group: str | None = None, options: FitOptions | None = None
) -> dict[str, Any]:
    """All laws scored on the same held-out runs, best first."""
    found, unusable = validate_all(split, group=group, options=options)
    return {
        "schema": "scalecli/validation-ranking/1",
        "train": split.rule,
        "laws": [one.document() for one in found],
        "unusable": [{"law": law.law, "reason": law.reason} for law in unusable],
    }
