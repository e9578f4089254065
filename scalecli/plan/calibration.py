"""The record of predicted against measured memory: one JSON line a step, kept beside the user's other state.

It is the calibration: the overhead of a device and library version is fitted to their lines, and the plan's error is
what the lines show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from scalecli.accounting.memory.overhead import UNCALIBRATED, Comparison, Overhead, fit_overhead
from scalecli.data.state import state_folder
from scalecli.errors import DataError


def record_file() -> Path:
    """Where the record is."""
    return state_folder() / "memory.jsonl"


def keep(comparisons: Iterable[Comparison], accelerator: str, file: Path | None = None) -> Path:
    """Append comparisons made on the device that the catalogue calls `accelerator`."""
    file = file or record_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            for comparison in comparisons:
                lines.write(json.dumps({"accelerator": accelerator} | asdict(comparison)) + "\n")
    except OSError as error:
        raise DataError(
            f"{file} cannot be written: {error.strerror}", hint="set SCALECLI_STATE to a folder"
        ) from error
    return file


def kept(accelerator: str, file: Path | None = None) -> list[Comparison]:
    """The comparisons on record for an accelerator, oldest first. Raises DataError for a damaged record."""
    file = file or record_file()
    if not file.exists():
        return []
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            name = entry.pop("accelerator")
            comparison = Comparison(**entry)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file}:{number} is no comparison: {error}", hint="delete that line") from error
        if name == accelerator:
            found.append(comparison)
    return found


def overhead_of(accelerator: str, file: Path | None = None) -> Overhead:
    """Calibrated on the newest library version with two sizes on record, else assumed."""
    comparisons = kept(accelerator, file)
    for newest in reversed(comparisons):
        same = [c for c in comparisons if (c.device, c.version) == (newest.device, newest.version)]
        if len({c.predicted_bytes for c in same}) > 1:
            return fit_overhead(same)
    return UNCALIBRATED
