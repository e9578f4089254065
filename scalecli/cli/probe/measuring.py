"""Measurements that one process makes by itself, kept in the store row by row."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalecli.errors import DataError

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement along a training: the same whenever its settings are, so it is made once for a store."""

    kind: str
    settings: Mapping[str, Any]
    store: Path

    @property
    def file(self) -> Path:
        """Its records; the file is there once the measurement is complete."""
        from scalecli.data.store import attempts_folder

        text = json.dumps(dict(self.settings), sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return attempts_folder(self.store) / f"{self.kind}-{digest}.jsonl"

    def rows(self, measure: Callable[[], Iterable[Mapping[str, Any]]]) -> Rows:
        """The stored rows, or those that `measure` yields now."""
        from scalecli.data.store import Store

        with Store.open(self.store) as store:
            if not self.file.exists():
                scratch = self.file.with_suffix(".part")
                scratch.unlink(missing_ok=True)
                for _ in _written(scratch, measure()):
                    pass
                scratch.replace(self.file)
            store.ingest(self.file)
        return [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]


def kept(kind: str, path: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield rows of a measurement of the machine, which differs each time, and store all that came."""
    from scalecli.data.store import Store

    with Store.open(path) as store:
        file = store.attempts / f"{kind}-{time.time_ns()}.jsonl"
        try:
            yield from _written(file, ({"kind": kind, **row} for row in rows))
        finally:
            if file.exists():
                store.ingest(file)


def _written(file: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows as strict JSON, each on disk before it is handed on."""
    from scalecli.data.records import plain_value

    for row in rows:
        record = plain_value(dict(row))
        try:
            with file.open("a", encoding="utf-8") as records:
                records.write(json.dumps(record, allow_nan=False) + "\n")
        except OSError as error:
            raise DataError(
                f"{file} cannot be written: {error.strerror}", hint="give --store another place"
            ) from error
        yield record
