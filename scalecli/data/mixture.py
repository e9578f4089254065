"""A mixture of data by domain: `web=PATH:0.7,code=PATH:0.3`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalecli.errors import DataError

_PART = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<spec>.+):(?P<share>[\d.eE+-]+)")


@dataclass(frozen=True, slots=True)
class Share:
    """A domain, where its data are, and its share of the training tokens."""

    name: str
    spec: str
    share: float


def parse_mixture(spec: str) -> tuple[Share, ...]:
    """The parts of a mixture, whose shares sum to one; empty when the text is none.

    Raises:
        DataError: the shares do not sum to one, or a name stands twice.

    >>> [(part.name, part.spec, part.share) for part in parse_mixture("web=a/b.txt:0.7,code=builtin:python:0.3")]
    [('web', 'a/b.txt', 0.7), ('code', 'builtin:python', 0.3)]
    >>> parse_mixture("builtin:python")
    ()
    """
    matches = [_PART.fullmatch(part) for part in spec.split(",")]
    if len(matches) < 2 or None in matches or _exists(spec):
        return ()
    parts = tuple(Share(found["name"], found["spec"], _number(found["share"])) for found in matches if found)
    total = math.fsum(part.share for part in parts)
    if min(part.share for part in parts) <= 0 or not math.isclose(total, 1.0, abs_tol=1e-6):
        raise DataError(f"the shares of {spec} sum to {total:g}", hint="positive shares that sum to 1")
    if len({part.name for part in parts}) < len(parts):
        raise DataError(f"a domain of {spec} stands twice", hint="give every domain its own name")
    return parts


def mixture_text(table: dict[str, Any]) -> str:
    """The same from a table of TOML: `web = {path = "...", share = 0.7}`.

    >>> mixture_text({"web": {"path": "a.txt", "share": 0.7}, "code": {"path": "b", "share": 0.3}})
    'web=a.txt:0.7,code=b:0.3'
    """
    for name, part in table.items():
        if not isinstance(part, dict) or set(part) != {"path", "share"}:
            raise DataError(f"the domain {name} should have a path and a share, not {part!r}")
    return ",".join(f"{name}={part['path']}:{part['share']}" for name, part in table.items())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{text} is no share of a mixture", hint="web=PATH:0.7,code=PATH:0.3") from None


def _exists(spec: str) -> bool:
    try:
        return Path(spec).exists()
    except (OSError, ValueError):
        return False
