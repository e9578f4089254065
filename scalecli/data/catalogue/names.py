"""What to say of a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def close_names(name: str, known: Iterable[str]) -> str:
    """The close names, or all of them when none is close.

    >>> close_names("h10", ["h100", "a100"]), close_names("zzz", ["b", "a"])
    ('close names: h100', 'there are a, b')
    """
    there = sorted(known)
    close = difflib.get_close_matches(name, there, n=3, cutoff=0.6)
    return f"close names: {', '.join(close)}" if close else f"there are {', '.join(there)}"
