"""Text of Hugging Face `datasets`: a folder that `save_to_disk` wrote, or `datasets:NAME` of the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scalecli.data.cache import cached_text
from scalecli.data.text.documents import FIELD, as_document, limited
from scalecli.data.text.split import END_OF_DOCUMENT as END
from scalecli.errors import DataError, needs_extra

PREFIX = "datasets:"
SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in a folder, of several splits or of one."""


def is_dataset(spec: str) -> bool:
    return spec.startswith(PREFIX) or any((Path(spec) / name).is_file() for name in SAVED)


def dataset_documents(spec: str, max_bytes: int) -> tuple[str, list[bytes]]:
    """Name and documents, the first ones of `train` up to `max_bytes`; those of the hub are fetched once and kept.

    `datasets:NAME` or `datasets:NAME:CONFIGURATION`. Raises DataError when the package is missing, the data cannot be
    had (with the hub out of reach, say) or have no column of text.
    """
    if not spec.startswith(PREFIX) or Path(spec.removeprefix(PREFIX)).exists():
        return Path(spec.removeprefix(PREFIX)).name, _read(spec, max_bytes)
    key = hashlib.sha256(f"{spec} {max_bytes}".encode()).hexdigest()
    kept = cached_text(f"{key}.txt", lambda: END.join(_read(spec, max_bytes)).decode())
    return spec, kept.encode().split(END)


def _read(spec: str, max_bytes: int) -> list[bytes]:
    with needs_extra("data", spec, DataError):
        import datasets  # type: ignore[import-untyped, unused-ignore]
    datasets.disable_progress_bars()
    try:
        if spec.startswith(PREFIX):
            path, _, configuration = spec.removeprefix(PREFIX).partition(":")
            rows: Any = datasets.load_dataset(path, configuration or None, split="train", streaming=True)
        else:
            rows = datasets.load_from_disk(spec)
            rows = rows["train"] if isinstance(rows, dict) else rows
        return list(_texts(spec, rows, max_bytes))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"{spec} cannot be read: {type(error).__name__}: {error}",
            hint="without the hub, give a folder of save_to_disk, a .jsonl or a .parquet file",
        ) from error


def _texts(spec: str, rows: Any, max_bytes: int) -> Iterator[bytes]:
    names = rows.column_names or list(next(iter(rows), ()))
    if FIELD not in names:
        raise DataError(
            f"{spec} has no column {FIELD!r}; it has {', '.join(names)}", hint="rename the column"
        )
    return limited((as_document(row[FIELD]) for row in rows if row[FIELD]), max_bytes)
