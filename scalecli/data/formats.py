"""Run tables as files: CSV, Parquet, JSON Lines and stores, read into one frame with line numbers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scalecli.data.cells import MISSING
from scalecli.data.records import frame_of, plain_value, records_of
from scalecli.errors import BadRow, DataError, needs_extra

if TYPE_CHECKING:
    import pandas as pd

MAX_FILE_BYTES = 2 * 2**30
"""Largest run table that is read; a table of runs has thousands of rows, so more is a mistake of the path."""
_BOOLEANS = {"true": True, "false": False}
_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet", ".db": "store", ".sqlite": "store", ".sqlite3": "store",
}  # fmt: skip

StoreRows = Literal["runs", "readings"]
"""What a row of a store is: a run, or a reading of the loss along one."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A table as it is in its file. `lines` gives the line (or row number) of each row, shape (rows,)."""

    frame: pd.DataFrame
    lines: NDArray[np.int64]
    source: str
    sha256: str


def is_run_table(path: Path | str) -> bool:
    """Whether the name is one of a run table, by its suffix; `-` is."""
    return str(path) == "-" or Path(path).suffix.lower() in _SUFFIXES


def load(path: Path | str, rows: StoreRows = "runs") -> Loaded:
    """Read a table by the suffix of its name; `-` is standard input, recognised by its first bytes.

    `rows` says what a row of a store is; the rows of files are theirs.
    """
    if str(path) == "-":
        return _load_stream(sys.stdin.buffer.read(MAX_FILE_BYTES + 1))
    path = Path(path)
    kind = _SUFFIXES.get(path.suffix.lower())
    with _readable(path):
        if not path.is_file():
            raise DataError(
                _not_a_file(path), hint="give a run table: .csv, .jsonl, .parquet, a store (.db), or - "
            )
        if kind is None:
            raise DataError(
                f"{path} is no run table: its name ends in none of {', '.join(_SUFFIXES)}",
                hint="save it as .csv, or as .jsonl: one run a line",
            )
        if kind == "store":
            return _load_store(path, rows)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are read as a run table")
        content = path.read_bytes()
    return _parse(content, kind, str(path))


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder, not a run table"
    return f"{path} is not a file" if path.exists() else f"{path} does not exist"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a NUL byte in the name
        raise DataError(f"{str(path)!r} is no file name: {error}") from None


def _load_stream(content: bytes) -> Loaded:
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"standard input has more than {MAX_FILE_BYTES} bytes")
    if content.startswith(b"SQLite format 3"):
        raise DataError("a store cannot be read from standard input", hint="give the path of the .db file")
    kind = (
        "parquet" if content.startswith(b"PAR1") else "jsonl" if content.lstrip().startswith(b"{") else "csv"
    )
    return _parse(content, kind, "-")


def _parse(content: bytes, kind: str, source: str) -> Loaded:
    if not content.strip():
        raise DataError(f"{source} is empty", hint="a run table has a header and one row for each run")
    frame, lines = _PARSERS[kind](content, source)
    if not len(frame):
        raise DataError(f"{source} has a header and no rows", hint="a run table has one row for each run")
    return Loaded(frame, lines, source, hashlib.sha256(content).hexdigest())


def _load_store(path: Path, rows: StoreRows) -> Loaded:
    from scalecli.data.store import Store

    with Store.open(path, write=False) as store:
        frame = store.runs()
        if not len(frame):
            raise DataError(f"{path} holds no runs yet", hint="scalecli probe sweep --store " + str(path))
        if rows == "readings":
            frame = store.readings()
    if not len(frame):
        raise DataError(
            f"no run of {path} was read along its way",
            hint="scalecli probe sweep --set recipe.evaluation.every=50 (steps)",
        )
    digest = hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()
    return Loaded(frame, np.arange(1, len(frame) + 1), str(path), digest)


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not UTF-8 text (byte {error.start})",
            hint="save it as UTF-8, or give the file its right suffix",
        ) from None


def _parse_csv(content: bytes, source: str) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    import pandas as pd

    text = _text(content, source)
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        header = [name.strip() for name in next(row for row in reader if row)]
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                fact = f"has {len(row)} fields where the header has {len(header)}"
                raise BadRow(
                    fact, file=source, line=reader.line_num, field="row", hint="quote text with commas in it"
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{source}:{reader.line_num} is not CSV: {error}") from None
    header = [name or f"column_{i}" for i, name in enumerate(header, start=1)]
    _refuse_duplicates(header, source)
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    frame = pd.DataFrame({name: _typed(column) for name, column in zip(header, cells, strict=True)})
    return frame, np.array(lines, dtype=np.int64)


def _refuse_duplicates(header: list[str], source: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"{source} has more than one column named {', '.join(twice)}", hint="rename all but one"
        )


def _typed(cells: tuple[str, ...]) -> pd.Series[Any]:
    """Numbers if every cell that is not missing is one, else booleans, else text (missing cells: None)."""
    import pandas as pd

    missing = np.array([cell.strip().lower() in MISSING for cell in cells], dtype=bool)
    present = pd.Series(
        [None if gone else cell for cell, gone in zip(cells, missing, strict=True)], dtype=object
    )
    numbers = pd.to_numeric(present, errors="coerce")
    if len(cells) and bool((numbers.isna() == missing).all()):
        return numbers if numbers.dtype.kind in "iu" else numbers.astype(float)
    lowered = {cell.strip().lower() for cell in cells}
    if cells and lowered <= _BOOLEANS.keys():
        return pd.Series([_BOOLEANS[cell.strip().lower()] for cell in cells], dtype=bool)
    return present


def _parse_jsonl(content: bytes, source: str) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    records, lines = [], []
    for number, line in enumerate(_text(content, source).split("\n"), start=1):
        if line.strip():
            records.append(_record(line, source, number))
            lines.append(number)
    return frame_of(records), np.array(lines, dtype=np.int64)


def _record(line: str, source: str, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"is not JSON: {error}", file=source, line=number, field="record") from None
    if not isinstance(record, dict):
        raise BadRow(
            f"is a JSON {type(record).__name__}, not an object", file=source, line=number, field="record"
        )
    return record


def _parse_parquet(content: bytes, source: str) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    import pandas as pd

    pyarrow = _pyarrow()
    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except (pyarrow.lib.ArrowException, ValueError, OSError, NotImplementedError, KeyError) as error:
        raise DataError(f"{source} is not a readable Parquet file: {error}") from None
    frame.columns = [str(name) for name in frame.columns]
    _refuse_duplicates(list(frame.columns), source)
    typed = {name: _plain(frame[name]) for name in frame.columns}
    return pd.DataFrame(typed).reset_index(drop=True), np.arange(1, len(frame) + 1)


def _plain(values: pd.Series[Any]) -> pd.Series[Any]:
    """Extension types (nullable numbers, categories, text) as plain numbers, booleans or objects."""
    import pandas as pd

    values = values.reset_index(drop=True)
    if values.dtype.kind in "fiub" and isinstance(values.dtype, np.dtype):
        return values
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        return pd.Series(values.to_numpy(dtype=float, na_value=float("nan")))
    objects = values.astype(object)
    return objects.where(objects.notna(), None)


def _pyarrow() -> Any:
    with needs_extra("parquet", "Parquet", DataError):
        import pyarrow  # type: ignore[import-untyped, unused-ignore]
    return pyarrow


_PARSERS: dict[str, Callable[[bytes, str], tuple[pd.DataFrame, NDArray[np.int64]]]] = {
    "csv": _parse_csv,
    "jsonl": _parse_jsonl,
    "parquet": _parse_parquet,
}


def write_runs(frame: pd.DataFrame, path: Path | str) -> None:
    """Write a table as .csv, .parquet or .jsonl; the whole file appears or, on an error, none of it."""
    path = Path(path)
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind not in _WRITERS:
        raise DataError(f"{path} cannot be written: its name must end in .csv, .jsonl or .parquet")
    content = _WRITERS[kind](frame)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except (OSError, ValueError) as error:
        raise _not_written(path, error) from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            # A table appears complete even if the machine stops right after the rename.
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError | ValueError) -> DataError:
    return DataError(
        f"{path} cannot be written: {getattr(error, 'strerror', None) or error}", hint="choose another place"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _csv_bytes(frame: pd.DataFrame) -> bytes:
    text = frame.to_csv(index=False)
    if "\r" in text:  # a carriage return ends a row for readers, and is not quoted unless all text is
        text = frame.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    # Lone surrogates, which JSON can hold and UTF-8 cannot, are written as escapes.
    return text.encode("utf-8", errors="backslashreplace")


def _jsonl_bytes(frame: pd.DataFrame) -> bytes:
    records = (json.dumps(record, allow_nan=False) for record in records_of(frame))
    return "".join(record + "\n" for record in records).encode()


def _parquet_bytes(frame: pd.DataFrame) -> bytes:
    _pyarrow()
    texts = {
        str(name): frame[name].map(_as_text).astype(object)
        for name in frame.columns
        if frame[name].dtype == object
    }
    stream = io.BytesIO()
    frame.assign(**texts).to_parquet(stream, index=False)
    return stream.getvalue()


def _as_text(cell: Any) -> str | None:
    """A cell of a column that has no one type: Parquet has none of mixed type, and no lone surrogates."""
    value = plain_value(cell)
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", errors="backslashreplace").decode()


_WRITERS = {"csv": _csv_bytes, "jsonl": _jsonl_bytes, "parquet": _parquet_bytes}
