"""Documents split between training and evaluation: by content, the same way on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scalecli.data.notes import Notice

END_OF_DOCUMENT = b"\0"
"""Stands between documents; text has no zero bytes."""
PIECE_BYTES = 2**16
"""Length of the pieces, cut at line ends, of a document too long for one side of the split."""


@dataclass(frozen=True, slots=True)
class Text:
    """Each side's documents, every one ended by `END_OF_DOCUMENT`."""

    name: str
    train: bytes
    validation: bytes
    notes: tuple[Notice, ...] = ()


def split_documents(name: str, documents: list[bytes], fraction: float, notes: Iterable[Notice] = ()) -> Text:
    """Exact duplicates count once; the rest are split in the order of the hashes of their content."""
    unique = {hashlib.sha256(document).digest(): document for document in documents if document.strip()}
    said = list(notes)
    if len(unique) < len(documents):
        fact = f"{len(documents) - len(unique)} duplicate or empty documents of {name} left out"
        said.append(Notice("W-DUPLICATES", fact))
    train, validation = _split(list(unique.values()), fraction)
    return Text(name, train, validation, tuple(said))


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
