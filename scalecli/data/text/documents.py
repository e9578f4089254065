"""The documents of a text file, a folder, or the Python library: bytes, at most so many of them."""

from __future__ import annotations

import gzip
import hashlib
import json
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scalecli.data.notes import Notice
from scalecli.errors import BadRow, DataError, needs_extra
from scalecli.units import format_bytes

PLAIN = (".txt", ".text", ".md", ".rst", ".py", ".tex", ".html", ".xml", ".json")
JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
PARQUET = (".parquet",)
SUFFIXES = (*PLAIN, *JSON_LINES, *PARQUET)
"""Files of a folder that are read; a file that is named itself may have any suffix."""
FIELD = "text"
"""The field or column that holds a document."""

_PYTHON_TESTS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})


def read_documents(spec: str, max_bytes: int) -> tuple[str, list[bytes], list[Notice]]:
    """Name, documents and notes of `builtin:python`, a file or a folder; DataError when there is no such text."""
    files, root, name = _files(spec)
    chosen, notes = _within(files, root, max_bytes)
    return name, [document for file in chosen for document in _documents(file, max_bytes)], notes


def _files(spec: str) -> tuple[list[Path], Path, str]:
    """Files in sorted order, the folder they are under, and the name of the corpus."""
    if spec == "builtin:python":
        root = Path(sysconfig.get_paths()["stdlib"])
        files = [
            file
            for file in sorted(root.rglob("*.py"))
            if not _PYTHON_TESTS & set(file.relative_to(root).parts)
        ]
        return files, root, spec
    if spec.startswith("builtin:"):
        raise DataError(
            f"there is no corpus {spec}; there is builtin:python", hint="--data builtin:python, or a path"
        )
    path = Path(spec)
    try:
        if path.is_file():
            return [path], path.parent, path.name
        if not path.is_dir():
            raise DataError(
                f"{spec} does not exist",
                hint="--data takes a file, a folder, builtin:python, or datasets:NAME",
            )
        return _files_of_folder(path), path, path.resolve().name
    except (OSError, ValueError) as error:
        raise DataError(f"{spec!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _files_of_folder(folder: Path) -> list[Path]:
    """Text files at any depth: no links (they would count twice) and nothing hidden."""
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.name.lower().endswith(SUFFIXES)
        and not _hidden(file.relative_to(folder))
        and _is_own_file(file)
    ]
    if not files:
        raise DataError(f"{folder} holds no text files", hint=f"read are {' '.join(sorted(SUFFIXES))}")
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_own_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _within(files: list[Path], root: Path, max_bytes: int) -> tuple[list[Path], list[Notice]]:
    """The files whose sizes sum to at most `max_bytes`, picked by hash of name when not all fit."""
    try:
        sizes = {file: file.stat().st_size for file in files}
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror or error}") from None
    if sum(sizes.values()) <= max_bytes:
        return files, []
    shuffled = sorted(files, key=lambda file: hashlib.sha256(str(file.relative_to(root)).encode()).digest())
    chosen: list[Path] = []
    budget = max_bytes
    for file in shuffled:
        if sizes[file] <= budget or not chosen:
            chosen.append(file)
            budget -= min(sizes[file], budget)
    fact = f"{format_bytes(max_bytes)} of {format_bytes(sum(sizes.values()))} in {root} are read"
    return sorted(chosen), [Notice("W-TRUNCATED", f"{fact}: {len(chosen)} of {len(files)} files")]


def _documents(file: Path, max_bytes: int) -> Iterator[bytes]:
    """Documents until `max_bytes` of text have been read."""
    name = file.name.lower()
    try:
        if name.endswith(PARQUET):
            yield from limited(_parquet_documents(file), max_bytes)
        elif name.endswith(JSON_LINES):
            yield from limited(_json_documents(file, _lines(file)), max_bytes)
        else:
            yield _plain_document(file, max_bytes)
    except (OSError, EOFError) as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _plain_document(file: Path, max_bytes: int) -> bytes:
    with file.open("rb") as stream:
        content = stream.read(max_bytes)
        cut_short = bool(stream.read(1))
    if b"\0" in content:
        raise DataError(
            f"{file} is not text: it has zero bytes",
            hint="convert it to .txt or .jsonl, or name a token file (.bin)",
        )
    return content[: content.rfind(b"\n") + 1] if cut_short else content


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file, unpacked; EOFError when a packed file ends too early."""
    name = file.name.lower()
    if name.endswith(".zst"):
        yield from _zstd_lines(file)
        return
    with gzip.open(file, "rb") if name.endswith(".gz") else file.open("rb") as stream:
        yield from stream


def _zstd_lines(file: Path) -> Iterator[bytes]:
    with needs_extra("data", file.name, DataError):
        import zstandard
    rest = b""
    with file.open("rb") as stream:
        frame = zstandard.ZstdDecompressor().decompressobj()
        while packed := frame.unused_data or stream.read(zstandard.DECOMPRESSION_RECOMMENDED_INPUT_SIZE):
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                *lines, rest = (rest + frame.decompress(packed)).split(b"\n")
            except zstandard.ZstdError as error:
                raise DataError(f"{file} is no zstandard file: {error}") from None
            yield from lines
        if not frame.eof:
            raise EOFError("it ends inside a frame")
    yield rest


def _json_documents(file: Path, lines: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadRow(f"is not JSON: {error}", file=str(file), line=number, field="record") from None
            if not isinstance(record, dict) or not isinstance(record.get(FIELD), str):
                raise BadRow("is missing or no text", file=str(file), line=number, field=FIELD)
            yield as_document(record[FIELD])


def _parquet_documents(file: Path) -> Iterator[bytes]:
    with needs_extra("parquet", f"{file.name}", DataError):
        import pyarrow  # type: ignore[import-untyped, unused-ignore]
        import pyarrow.parquet  # type: ignore[import-untyped, unused-ignore]
    try:
        table: Any = pyarrow.parquet.ParquetFile(file)
        if FIELD not in table.schema_arrow.names:
            there = ", ".join(table.schema_arrow.names)
            raise DataError(f"{file} has no column {FIELD!r}; it has {there}", hint="rename the column")
        for batch in table.iter_batches(columns=[FIELD]):
            yield from (as_document(text) for text in batch.column(0).to_pylist() if text is not None)
    except pyarrow.ArrowException as error:
        raise DataError(f"{file} is no Parquet file: {error}") from None


def as_document(text: str) -> bytes:
    """UTF-8 without zero bytes, which stand between documents."""
    return text.encode("utf-8", errors="replace").replace(b"\0", b"")


def limited(documents: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    """Whole documents, of at most `max_bytes` in all, one at least."""
    read = 0
    for document in documents:
        if read and read + len(document) > max_bytes:
            return
        read += len(document)
        yield document
