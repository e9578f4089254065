"""How every document gets onto the disk."""

from __future__ import annotations

import contextlib
from pathlib import Path

from scalecli.errors import ExportError


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; `ExportError` when the place cannot be written."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text + "\n", encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise ExportError(
            f"{path} cannot be written: {error.strerror}", hint="choose another --out"
        ) from error
