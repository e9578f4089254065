"""Files of token ids that other trainers write: nanoGPT, llm.c, Megatron. They are mapped, not read.

- nanoGPT: uint16 ids and nothing else; a folder has train.bin and val.bin.
- llm.c: 256 int32, of which the first three are a magic number, a version and a count of tokens, then the ids; the
  magic decides their type. Several shards of one name stand for one file.
- Megatron: ids in NAME.bin, and NAME.idx, which begins with MMIDIDX, a version, the type and the numbers of sequences
  and documents.

uint16 holds 65,536 ids: larger vocabularies written into it have wrapped around, and nothing in the file says so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalecli.data.notes import Notice
from scalecli.errors import DataError
from scalecli.units import format_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LLMC_HEADER_BYTES = 1024
LLMC = {(20240520, 1): "<u2", (20240801, 7): "<u4"}
"""Magic and version of llm.c's data files, GPT-2's and Llama 3's, and the type of ids that follow."""
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
IDS = "ids"
STATED = "ids:"
"""`--tokenizer ids:50257` says how many ids the vocabulary has."""
ROUNDED = 64
"""A vocabulary that is not stated is the largest id, rounded up to a multiple of this."""
VALIDATION_NAMES = ("val.bin", "valid.bin", "validation.bin", "test.bin")


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """Mapped ids of each side."""

    name: str
    train: NDArray[np.integer[Any]]
    validation: NDArray[np.integer[Any]]
    vocab: int
    notes: tuple[Notice, ...] = ()


def holds_tokens(spec: str) -> bool:
    """Whether the path is a token file (.bin, or Megatron's name without suffix), or a folder of such files."""
    path = Path(spec)
    if path.is_dir():
        return bool(_train_files(path))
    return path.suffix == ".bin" or path.with_name(f"{path.name}.idx").is_file()


def read_tokens(spec: str, tokenizer: str, *, fraction: float, max_bytes: int) -> TokenFiles:
    """The ids of a file or folder; without a validation file the last `fraction` of the ids are kept for evaluation.

    `tokenizer` is `ids:N` for a vocabulary of N ids, else empty or `ids`. At most `max_bytes` of each side are used.

    Raises:
        DataError: the file is not what its name or header says, or has an id that its vocabulary lacks.
    """
    path = Path(spec)
    stated = _stated(tokenizer)
    folder = path.is_dir()
    files = (
        _train_files(path)
        if folder
        else [path if path.suffix == ".bin" else path.with_name(f"{path.name}.bin")]
    )
    held_out = [path / name for name in VALIDATION_NAMES if (path / name).is_file()] if folder else []
    held_out = held_out[:1] or (sorted(path.glob("*val*.bin")) if folder else [])
    arrays = [_ids_of(file) for file in files if file not in held_out]
    train = _first(arrays, max_bytes)
    notes = _truncation(path, sum(len(array) for array in arrays), len(train))
    if held_out:
        validation = _first([_ids_of(file) for file in held_out], max_bytes)
    else:
        cut = len(train) - int(fraction * len(train))
        train, validation = train[:cut], train[cut:]
    vocab, said = _vocabulary(path, stated, train, validation)
    return TokenFiles(path.name, train, validation, vocab, (*notes, *said))


def _train_files(folder: Path) -> list[Path]:
    """nanoGPT's train.bin, or the shards of llm.c whose names have `train`, in order."""
    return [folder / "train.bin"] if (folder / "train.bin").is_file() else sorted(folder.glob("*train*.bin"))


def _stated(tokenizer: str) -> int | None:
    if tokenizer in ("", IDS):
        return None
    if tokenizer.startswith(STATED) and tokenizer.removeprefix(STATED).isdigit():
        return int(tokenizer.removeprefix(STATED))
    raise DataError(f"token files hold ids, not text for {tokenizer}", hint="--tokenizer ids:50257")


def _ids_of(file: Path) -> Any:
    """Mapped ids, by what the file says of itself."""
    index = file.with_suffix(".idx")
    try:
        with file.open("rb") as stream:
            head = stream.read(12)
        size = file.stat().st_size
        if index.is_file():
            return _mapped(file, _megatron_type(index, size), 0, size)
        magic, version, count = struct.unpack("<3i", head) if len(head) == 12 else (0, 0, 0)
        if magic in {known for known, _ in LLMC}:
            kind = LLMC.get((magic, version))
            if kind is None:
                raise DataError(f"{file} is of llm.c's format, version {version}, which is not known")
            ids = _mapped(file, kind, LLMC_HEADER_BYTES, size)
            if len(ids) != count:
                raise DataError(
                    f"{file} has {len(ids)} ids, its header says {count}",
                    hint="the file is cut short, or not whole",
                )
            return ids
        return _mapped(file, "<u2", 0, size)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, struct.error) as error:  # a header that promises more than the file has
        raise DataError(f"{file} is no token file: {error}") from None


def _mapped(file: Path, kind: str, offset: int, size: int) -> Any:
    import numpy as np

    width = np.dtype(kind).itemsize
    if size <= offset or (size - offset) % width:
        raise DataError(f"{file} has {size} bytes: no whole number of {8 * width}-bit ids")
    return np.memmap(file, dtype=kind, mode="r", offset=offset)


def _megatron_type(index: Path, size: int) -> str:
    """The type of the ids, once lengths and size have been found to agree."""
    import numpy as np

    content = index.read_bytes()
    if content[:9] != MEGATRON_MAGIC:
        raise DataError(f"{index} is no index of Megatron: it begins with {content[:9]!r}")
    version, code, sequences = struct.unpack_from("<QBQ", content, 9)
    kind = MEGATRON_TYPES.get(code)
    if version != 1 or kind is None:
        raise DataError(
            f"{index}: version {version} with ids of type {code} is not known", hint="integer ids, version 1"
        )
    lengths = np.frombuffer(content, dtype="<i4", count=sequences, offset=34)
    if int(lengths.sum(dtype=np.int64)) * np.dtype(kind).itemsize != size:
        raise DataError(
            f"{index} counts {int(lengths.sum(dtype=np.int64))} ids, the .bin beside it has {size} bytes",
            hint="the two files are not of one run",
        )
    return kind


def _first(arrays: list[Any], max_bytes: int) -> Any:
    """The first ids, `max_bytes` at most: a view of the one file, or a copy of several."""
    import numpy as np

    if not arrays:
        return np.zeros(0, dtype=np.uint16)
    limit = max(1, max_bytes // arrays[0].dtype.itemsize)
    if len(arrays) == 1:
        return arrays[0][:limit]
    parts, left = [], limit
    for array in arrays:
        parts.append(array[:left])
        left -= len(parts[-1])
    return np.concatenate(parts)


def _truncation(path: Path, there: int, used: int) -> list[Notice]:
    if used == there:
        return []
    return [
        Notice(
            "W-TRUNCATED", f"the first {format_count(used)} of {format_count(there)} ids in {path} are used"
        )
    ]


def _vocabulary(path: Path, stated: int | None, *sides: Any) -> tuple[int, list[Notice]]:
    """The size of the vocabulary, which every id has been found to be below."""
    largest, smallest = (
        max(int(side.max()) for side in sides if len(side)),
        min(int(side.min()) for side in sides if len(side)),
    )
    if smallest < 0:
        raise DataError(
            f"{path} has the id {smallest}", hint="ids that overflowed a signed type; write them anew"
        )
    if stated is None:
        vocab = -(-(largest + 1) // ROUNDED) * ROUNDED
        fact = f"the largest id in {path} is {largest}: a vocabulary of {vocab} is assumed"
        return vocab, [Notice("W-VOCABULARY", f"{fact}; say it with --tokenizer ids:N")]
    room = 2 ** (8 * sides[0].dtype.itemsize)
    if stated > room:
        raise DataError(
            f"{path} holds {8 * sides[0].dtype.itemsize}-bit ids, {room} at most: {stated} have wrapped around",
            hint="write the ids anew as uint32",
        )
    if largest >= stated:
        raise DataError(
            f"{path} has the id {largest}, the vocabulary {stated} ids",
            hint="give the right --tokenizer ids:N",
        )
    return stated, []
