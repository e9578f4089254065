"""Every form a plan can be written in. Adding one: its file, and its line here."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from scalecli.errors import ExportError
from scalecli.export.batch_table import to_batch_table
from scalecli.export.markdown import to_markdown
from scalecli.plan.document import Plan

FORMATS: dict[str, Callable[[Plan], str]] = {
    "json": lambda plan: json.dumps(plan.document(), indent=2, allow_nan=False),
    "markdown": to_markdown,
    "batch-table": to_batch_table,
}


def read_plan(path: Path) -> Plan:
    """A plan from its JSON; `ExportError` that names the first key that is wrong."""
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(
            f"{path} cannot be read: {error.strerror}", hint="scalecli plan ... --out plan.json"
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{path} is no plan: {_first(error)}", hint="scalecli plan ... --out plan.json"
        ) from error


def render(plan: Plan, form: str) -> str:
    """The plan in the wanted form; `ExportError` with close names when there is no such form."""
    if form not in FORMATS:
        close = get_close_matches(form, FORMATS) or list(FORMATS)
        raise ExportError(f"a plan cannot be exported to {form!r}", hint=f"--to {' or '.join(close)}")
    return FORMATS[form](plan)


def _first(error: ValidationError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not a text file"
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'document'}: {first['msg']}"
