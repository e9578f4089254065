"""Early stop of hopeless runs: a run far above its best rival at the same share of the same length is given up.

Rivals share model, data and number of tokens, and differ in batch, rate, optimizer or seed. Each notes its training
loss at a quarter, a half and three quarters of its steps in a file that all can append to, and compares itself with
what is noted there at that moment: nothing is decided between runs, so any engine can train them in any order.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from scalecli.errors import DataError
from scalecli.probes.config import ProbeConfig

SHARES = (0.25, 0.5, 0.75)


class Rivals:
    """The readings of all runs that share a file; `above` is how far a run may be above the best one [nats/token]."""

    def __init__(self, file: Path, above: float) -> None:
        self._file = file
        self._above = above

    def hopeless(self, config: ProbeConfig, share: float, loss: float) -> str:
        """Notes a reading; why the run is hopeless by the rule, or nothing.

        Raises:
            DataError: the file cannot be written, as on a node that does not have the store's disk.
        """
        best = self._best(config, share)
        line = json.dumps({**_key(config), "share": share, "run_id": config.run_id, "loss": loss})
        try:
            with self._file.open("a", encoding="utf-8") as readings:
                readings.write(line + "\n")
        except OSError as error:
            raise DataError(
                f"{self._file} cannot be written: {error.strerror}",
                hint="--stop-above needs the store on a disk that all nodes share",
            ) from error
        if loss <= best + self._above:
            return ""
        return (
            f"training loss {loss:.3f} at {100 * share:g} % of {config.steps} steps is {loss - best:.3f} above the "
            f"best of its model and length ({best:.3f}); the limit is {self._above:g}"
        )

    def _best(self, config: ProbeConfig, share: float) -> float:
        """The least loss noted so far; infinite when none is."""
        if not self._file.exists():
            return math.inf
        wanted = {**_key(config), "share": share}
        noted = map(_reading, self._file.read_text(encoding="utf-8").splitlines())
        return min((each["loss"] for each in noted if wanted.items() <= each.items()), default=math.inf)


def _key(config: ProbeConfig) -> dict[str, Any]:
    """What rivals share. Batches do not divide every length: tokens are compared to two digits."""
    return {"group": config.group, "tokens": f"{config.tokens:.1e}", "unique": config.unique_tokens}


def _reading(line: str) -> dict[str, Any]:
    """One line; nothing of a line that another process is still writing."""
    try:
        reading: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return reading
