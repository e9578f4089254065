"""Training text: the Python library on this machine, or the user's files; bytes are the tokens.

A corpus is a set of documents. Exact duplicates count once; the rest are split between training and
validation by document, in the order of the hashes of their content: the same text is split the same way
on every machine, and no document is on both sides.
"""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalecli.data.notes import Note
from scalecli.errors import BadRow, DataError
from scalecli.units import format_bytes, format_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTE_VOCABULARY = 256
END_OF_DOCUMENT = b"\0"
"""Stands between documents; text has no zero bytes."""
TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".rst", ".py", ".tex", ".html", ".xml", ".json", ".jsonl"})
"""Files of a folder that are read; a file that is named itself may have any suffix."""
PIECE_BYTES = 2**16
"""Length of the pieces, cut at line ends, of a document too long for one side of the split."""
DEFAULT_MAX_BYTES = 2**30
MIN_TRAIN_TOKENS, MIN_VALIDATION_TOKENS = 2**16, 2**13
"""Less text than this cannot train or rank even the smallest probe."""

_PYTHON_TESTS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class Corpus:
    """Token ids, shape (tokens,) for each side. `sha256` identifies content and split; `bytes_per_token` is None
    where only ids are known."""

    name: str
    train: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    vocab: int
    bytes_per_token: float | None
    sha256: str
    notes: tuple[Note, ...] = ()

    @property
    def unique_tokens(self) -> int:
        return len(self.train)

    def epochs(self, tokens: float) -> float:
        """How often training on `tokens` tokens sees the training text."""
        return tokens / self.unique_tokens

    def repetition(self, tokens: float) -> Note | None:
        """A warning when training on `tokens` tokens goes past one epoch, where laws of fresh data end."""
        if not self.unique_tokens or self.epochs(tokens) <= 1:
            return None
        fact = f"{format_count(tokens)} tokens are {self.epochs(tokens):.2f} epochs of {self.name}"
        return Note(
            "W-EPOCHS", f"{fact} ({format_count(self.unique_tokens)} tokens): give more text with --data"
        )


def outside_corpus(name: str) -> Corpus:
    """Stands for data that a training brings itself: nothing is known of them but a name."""
    import numpy as np

    nothing = np.zeros(0, dtype=np.uint8)
    return Corpus(name=name, train=nothing, validation=nothing, vocab=0, bytes_per_token=None, sha256="")


def load_corpus(
    spec: str,
    *,
    validation_fraction: float = 0.1,
    max_bytes: int = DEFAULT_MAX_BYTES,
    min_train_tokens: int = MIN_TRAIN_TOKENS,
    min_validation_tokens: int = MIN_VALIDATION_TOKENS,
) -> Corpus:
    """Read `builtin:python`, a text file, a .jsonl file with a `text` field, or a folder of such files.

    At most `max_bytes` are read, and what is left out is noted. `DataError` when there is no such text, or
    too little for either side of the split.
    """
    files, root, name = _files(spec)
    chosen, notes = _within(files, root, max_bytes)
    documents = [document for file in chosen for document in _documents(file, max_bytes)]
    unique = {hashlib.sha256(document).digest(): document for document in documents if document.strip()}
    if len(unique) < len(documents):
        notes.append(
            Note(
                "W-DUPLICATES",
                f"{len(documents) - len(unique)} duplicate or empty documents of {name} left out",
            )
        )
    train, validation = _split(list(unique.values()), validation_fraction)
    _refuse_too_small(name, len(train), len(validation), min_train_tokens, min_validation_tokens)
    return _tokenized(name, train, validation, notes)


def _tokenized(name: str, train: bytes, validation: bytes, notes: list[Note]) -> Corpus:
    import numpy as np

    digest = hashlib.sha256(hashlib.sha256(train).digest() + hashlib.sha256(validation).digest()).hexdigest()
    return Corpus(
        name=name,
        train=np.frombuffer(train, dtype=np.uint8).copy(),
        validation=np.frombuffer(validation, dtype=np.uint8).copy(),
        vocab=BYTE_VOCABULARY,
        bytes_per_token=1.0,
        sha256=digest,
        notes=tuple(notes),
    )


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
                f"{spec} does not exist", hint="--data takes a text file, a folder, or builtin:python"
            )
        return _files_of_folder(path), path, path.resolve().name
    except (OSError, ValueError) as error:
        raise DataError(f"{spec!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _files_of_folder(folder: Path) -> list[Path]:
    """Text files at any depth: no links (they would count twice) and nothing hidden."""
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in TEXT_SUFFIXES
        and not _hidden(file.relative_to(folder))
        and _is_own_file(file)
    ]
    if not files:
        raise DataError(f"{folder} holds no text files", hint=f"read are {' '.join(sorted(TEXT_SUFFIXES))}")
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_own_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _within(files: list[Path], root: Path, max_bytes: int) -> tuple[list[Path], list[Note]]:
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
    return sorted(chosen), [Note("W-TRUNCATED", f"{fact}: {len(chosen)} of {len(files)} files")]


def _documents(file: Path, max_bytes: int) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            content = stream.read(max_bytes)
            cut_short = bool(stream.read(1))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    if b"\0" in content:
        raise DataError(
            f"{file} is not text: it has zero bytes", hint="unpack or convert it to .txt or .jsonl first"
        )
    if cut_short:
        content = content[: content.rfind(b"\n") + 1]
    if file.suffix.lower() == ".jsonl":
        yield from _json_documents(file, content)
    else:
        yield content


def _json_documents(file: Path, content: bytes) -> Iterator[bytes]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadRow(f"is not JSON: {error}", file=str(file), line=number, field="record") from None
            if not isinstance(record, dict) or not isinstance(record.get("text"), str):
                raise BadRow("is missing or no text", file=str(file), line=number, field="text")
            yield record["text"].encode("utf-8", errors="replace").replace(b"\0", b"")


def _split(documents: list[bytes], fraction: float) -> tuple[bytes, bytes]:
    """Training and validation text: documents in the order of their hashes, validation first until full."""
    wanted = fraction * sum(len(document) for document in documents)
    pieces = [
        piece
        for document in documents
        for piece in ([document] if len(document) <= wanted else _cut(document))
    ]
    train, validation, filled = [], [], 0
    for piece in sorted(pieces, key=lambda piece: hashlib.sha256(piece).digest()):
        if filled < wanted:
            validation.append(piece)
            filled += len(piece)
        else:
            train.append(piece)
    return _joined(train), _joined(validation)


def _cut(document: bytes) -> Iterator[bytes]:
    """Pieces of about PIECE_BYTES, each ending with a line where there is one."""
    start = 0
    while start < len(document):
        end = min(start + PIECE_BYTES, len(document))
        line_end = document.rfind(b"\n", start, end) + 1
        if end < len(document) and line_end > start:
            end = line_end
        yield document[start:end]
        start = end


def _joined(pieces: Iterable[bytes]) -> bytes:
    return b"".join(piece + END_OF_DOCUMENT for piece in pieces)


def _refuse_too_small(name: str, train: int, validation: int, min_train: int, min_validation: int) -> None:
    for side, there, needed in (("training", train, min_train), ("validation", validation, min_validation)):
        if there < needed:
            raise DataError(
                f"{name} has {there} bytes of {side} text; at least {needed} bytes are needed",
                hint="give more text with --data, or use --data builtin:python",
            )
