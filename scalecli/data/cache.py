"""What is dear to compute and decided by its key: a file in the cache folder, written whole or not at all.

A cache that cannot be written costs time, never a result.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[np.integer[Any]]"]


def cache_folder() -> Path:
    """`$SCALECLI_CACHE`, or the user's cache folder (XDG)."""
    given = os.environ.get("SCALECLI_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else home / "scalecli"


def cached_text(name: str, make: Callable[[], str]) -> str:
    """The text under this name, made when it is not there."""
    file = cache_folder() / name
    if file.is_file():
        return file.read_text(encoding="utf-8")
    text = make()
    with contextlib.suppress(OSError):
        _write(file, lambda scratch: scratch.write_text(text, encoding="utf-8"))
    return text


def cached_arrays(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Integer arrays under this name, mapped from the disk where they are there."""
    import numpy as np

    folder = cache_folder() / name
    files = {file.stem: file for file in folder.glob("*.npy")}
    if files:
        return {key: np.load(file, mmap_mode="r", allow_pickle=False) for key, file in files.items()}
    arrays = make()
    with contextlib.suppress(OSError):
        _write(folder, lambda scratch: _save(scratch, arrays))
    return arrays


def _save(folder: Path, arrays: Arrays) -> None:
    import numpy as np

    folder.mkdir()
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array, allow_pickle=False)


def _write(target: Path, write: Callable[[Path], object]) -> None:
    """Another process that writes the same is no harm: the first one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    write(scratch)
    scratch.replace(target)
