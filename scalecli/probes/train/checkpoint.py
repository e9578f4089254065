"""Checkpoints of a training, written only when asked for, from which it goes on as if it had never stopped.

One file for each unit's trunk: its name is made of what the runs are, so that the same runs find it again. Files are
written whole or not at all, and read back as tensors and plain values only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from scalecli.errors import DataError
from scalecli.probes.config import ProbeConfig

EVERY_SECONDS = 60.0
"""Time between two checkpoints of a run; a step that is shorter does not matter, a lost minute hardly."""


class Checkpoints:
    """The checkpoint of runs that train side by side."""

    def __init__(self, folder: str, copies: Sequence[ProbeConfig]) -> None:
        names = hashlib.sha256(" ".join(config.family for config in copies).encode()).hexdigest()[:16]
        self.file = Path(folder) / f"{names}.pt"

    def write(self, state: dict[str, Any]) -> None:
        """Raises DataError when the folder cannot be written."""
        scratch = self.file.with_suffix(".part")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, scratch)
            scratch.replace(self.file)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self.file} cannot be written: {error}", hint="give --checkpoint another folder"
            ) from error

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """What was written last; None when nothing was. Raises DataError when the file is not a checkpoint."""
        if not self.file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, map_location=device, weights_only=True)
        except Exception as error:  # torch raises whatever its readers do
            raise DataError(
                f"{self.file} is no checkpoint: {error}", hint="delete it to begin anew"
            ) from error
        return state
