"""The store: every run of a project in one SQLite file, written by one driver, resumable after anything.

Probes never open the database. Each attempt appends JSON Lines to a file of its own in `Store.attempts`, and
the driver takes the files in. A line is one record:

    {"kind": "step", "run_id": ..., "step": 10, "loss": 3.1, ...}     a point of the training curve
    {"kind": "noise" or any other name, "run_id": ..., ...}           a row of a measurement of that kind
    {"kind": "result", "run_id": ..., "status": "ok", ...}            the end: one row of the run table

Nothing that is stored is overwritten by less: a run whose status is ok or diverged keeps its row for ever,
and the steps of every attempt are kept apart. A store is used from the thread that opened it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from scalecli.data.lock import DriverLock
from scalecli.data.network import on_network_file_system
from scalecli.data.records import frame_of, plain_value, records_of
from scalecli.data.schema import COLUMNS, FINISHED, STATUSES, status_of
from scalecli.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from scalecli.data.tables import RunTable

APPLICATION_ID = 0x5343_4C49
"""Written into the header of every store (the letters SCLI), so that no other database is taken for one."""

MIGRATIONS = (
    """
    CREATE TABLE planned (run_id TEXT PRIMARY KEY, config TEXT NOT NULL, created_at TEXT NOT NULL);
    CREATE TABLE results (
        run_id TEXT NOT NULL, attempt TEXT NOT NULL, status TEXT NOT NULL, record TEXT NOT NULL,
        created_at TEXT NOT NULL, PRIMARY KEY (run_id, attempt)
    );
    CREATE VIEW runs AS
        SELECT run_id, attempt, status, record, arrival FROM (
            SELECT run_id, attempt, status, record, min(rowid) OVER (PARTITION BY run_id) AS arrival,
                row_number() OVER (
                    PARTITION BY run_id ORDER BY status IN ('ok', 'diverged') DESC, rowid DESC
                ) AS place
            FROM results
        ) WHERE place = 1;
    CREATE TABLE steps (
        run_id TEXT NOT NULL, attempt TEXT NOT NULL, position INTEGER NOT NULL, step INTEGER NOT NULL,
        record TEXT NOT NULL, PRIMARY KEY (run_id, attempt, position)
    ) WITHOUT ROWID;
    CREATE TABLE measurements (
        kind TEXT NOT NULL, run_id TEXT NOT NULL, attempt TEXT NOT NULL, position INTEGER NOT NULL,
        record TEXT NOT NULL, PRIMARY KEY (kind, run_id, attempt, position)
    ) WITHOUT ROWID;
    """,
)
"""Scripts that bring a store from version i to i + 1; `user_version` counts those applied.

`results` has one row for each attempt that ended; of those, `runs` shows the one that counts: the finished one (no
other comes after it), else the latest.
"""

OF_THE_END = frozenset({
    "loss", "loss_std", "loss_bits_per_byte", "perplexity", "tokens_per_second", "device_hours", "peak_memory_bytes",
    "adamw_timescale", "status", "status_reason", "created_at",
})  # fmt: skip
"""Columns of a run that say nothing of a reading along its way."""

GROWING = ("tokens", "flops")
"""Columns of a run that a reading has its share of."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one attempt file added to the store.

    `incomplete` are runs that have records and no result in the file; `damaged` are lines (from 1) that are
    not records, such as a last line cut short by a kill. They stay in the file.
    """

    rows: int = 0
    steps: int = 0
    measurements: int = 0
    incomplete: tuple[str, ...] = ()
    damaged: tuple[int, ...] = ()


@dataclass(slots=True)
class _Attempt:
    """The records of one attempt file, by kind."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: list[tuple[str, int, int, dict[str, Any]]] = field(default_factory=list)
    measurements: list[tuple[str, str, int, dict[str, Any]]] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    def seen(self) -> dict[str, None]:
        """Ids of the runs that have a record, in order."""
        return dict.fromkeys(
            [run_id for run_id, _, _, _ in self.steps] + [run_id for _, run_id, _, _ in self.measurements]
        )


class Store:
    """An open store, from `Store.open`; leaving the `with` block closes it and frees the driver's lock."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: DriverLock | None, notes: list[str]
    ) -> None:
        self.path = path
        self.notes = tuple(notes)
        self._connection = connection
        self._lock = lock

    @classmethod
    def open(cls, path: Path | str, *, write: bool = True) -> Store:
        """Open or, to write, create the store at `path`.

        To write takes the driver's lock: a second driver gets a `DataError` that names the first one's
        process. Reading needs no lock and no write permission. `DataError` too for what is no store, and for
        a store of a newer version.
        """
        path = Path(path)
        return cls._open_to_write(path) if write else cls._open_to_read(path)

    @classmethod
    def _open_to_write(cls, path: Path) -> Store:
        lock = DriverLock.take(path)
        try:
            with _typed_errors(path):
                connection = sqlite3.connect(path, isolation_level=None)
                try:
                    notes = _prepare(connection, path)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            lock.release()
            raise
        return cls(path, connection, lock, notes)

    @classmethod
    def _open_to_read(cls, path: Path) -> Store:
        if not path.is_file():
            raise DataError(f"there is no store at {path}", hint=f"scalecli probe sweep --store {path}")
        with _typed_errors(path):
            connection = _connect_to_read(path)
            try:
                _check_version(connection, path)
            except BaseException:
                connection.close()
                raise
        return cls(path, connection, None, [])

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    @property
    def attempts(self) -> Path:
        """The folder of the attempt files, beside the database; made when the store is opened to write."""
        return attempts_folder(self.path)

    def plan(self, configs: Mapping[str, Mapping[str, Any]]) -> int:
        """Register runs by id with their resolved configuration; returns how many are new."""
        with self._transaction() as connection:
            before = connection.total_changes
            connection.executemany(
                "INSERT OR IGNORE INTO planned VALUES (?, ?, ?)",
                [(run_id, _json(config), _now()) for run_id, config in configs.items()],
            )
            return connection.total_changes - before

    def planned(self) -> dict[str, dict[str, Any]]:
        """Configurations of all registered runs, by id, in the order they were registered."""
        rows = self._rows("SELECT run_id, config FROM planned ORDER BY rowid")
        return {run_id: json.loads(config) for run_id, config in rows}

    def finished(self, *more: str) -> set[str]:
        """Ids of the runs that need no further attempt: status ok or diverged, or one of `more`."""
        statuses = (*FINISHED, *more)
        marks = ", ".join("?" for _ in statuses)
        return {
            run_id for (run_id,) in self._rows(f"SELECT run_id FROM runs WHERE status IN ({marks})", statuses)
        }

    def ingest(self, file: Path | str) -> IngestReport:
        """Take in one attempt file. Taking it in again, or when it has grown, adds only what is new."""
        file = Path(file)
        attempt = _read_attempt(file)
        with self._transaction() as connection:
            rows = sum(_keep_result(connection, result, file.name) for result in attempt.results.values())
            before = connection.total_changes
            connection.executemany(
                "INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?, ?)",
                [(run_id, file.name, at, step, _json(record)) for run_id, at, step, record in attempt.steps],
            )
            steps = connection.total_changes - before
            connection.executemany(
                "INSERT OR IGNORE INTO measurements VALUES (?, ?, ?, ?, ?)",
                [
                    (kind, run_id, file.name, position, _json(record))
                    for kind, run_id, position, record in attempt.measurements
                ],
            )
            measurements = connection.total_changes - before - steps
        incomplete = tuple(run_id for run_id in attempt.seen() if run_id not in attempt.results)
        return IngestReport(rows, steps, measurements, incomplete, tuple(attempt.damaged))

    def put(self, record: Mapping[str, Any]) -> bool:
        """Store a result that the driver knows (of a probe that died, say); False if the run is finished."""
        with self._transaction() as connection:
            return _keep_result(connection, _checked_result(record, "the driver"), f"driver-{time.time_ns()}")

    def import_rows(self, runs: RunTable) -> int:
        """Store the rows of a table as runs; returns how many are new. A missing `run_id` is
        made of the content.

        A store has one row for a run: a table of checkpoints, where a `run_id` repeats, is a `DataError`.
        """
        results = [_imported(record, runs.source) for record in records_of(runs.frame)]
        counts = Counter(result["run_id"] for result in results)
        repeated = [run_id for run_id, count in counts.items() if count > 1]
        if repeated:
            raise DataError(
                f"{runs.source}: run_id {repeated[0]!r} stands in {counts[repeated[0]]} rows",
                hint="a store has one row for a run: keep its last checkpoint (--where)",
            )
        attempt = f"import:{runs.sha256[:16]}"
        with self._transaction() as connection:
            return sum(_keep_result(connection, result, attempt) for result in results)

    def runs(self) -> pd.DataFrame:
        """One row for each run that has a result, canonical columns first, in the order of arrival."""
        frame = frame_of(
            [json.loads(record) for (record,) in self._rows("SELECT record FROM runs ORDER BY arrival")]
        )
        names = [str(name) for name in frame.columns]
        return frame[
            [name for name in COLUMNS if name in names] + [name for name in names if name not in COLUMNS]
        ]

    def steps(self, run_id: str) -> pd.DataFrame:
        """The training curve of a run: of the attempt whose result counts, else of the longest."""
        best = self._rows(
            "SELECT attempt FROM steps WHERE run_id = ?1 GROUP BY attempt ORDER BY "
            "attempt = (SELECT attempt FROM runs WHERE run_id = ?1) DESC, count(*) DESC, attempt LIMIT 1",
            (run_id,),
        )
        query = "SELECT record FROM steps WHERE run_id = ? AND attempt = ? ORDER BY step, position"
        return frame_of(
            [json.loads(record) for (record,) in self._rows(query, (run_id, best[0][0]))] if best else []
        )

    def readings(self) -> pd.DataFrame:
        """One row for each reading of the loss along a run, and for its end, with the settings of the run.

        Tokens, steps and compute are those up to the reading; what only the end has (throughput, other losses) is
        left out. Runs without readings are too.
        """
        rows: list[dict[str, Any]] = []
        for run in records_of(self.runs()):
            along = {reading["step"]: reading for reading in records_of(self.steps(str(run["run_id"])))}
            if along and run.get("status") == "ok" and run.get("steps") is not None:
                rows += _readings(run, along)
        return frame_of(rows)

    def measurements(self, kind: str) -> pd.DataFrame:
        """All rows of one kind of measurement (noise, throughput, memory), in the order they were written."""
        query = "SELECT record FROM measurements WHERE kind = ? ORDER BY attempt, position"
        return frame_of([json.loads(record) for (record,) in self._rows(query, (kind,))])

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with _typed_errors(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block's changes or, on any error, none."""
        with _typed_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # On some errors (a full disk) SQLite has rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _readings(run: Mapping[str, Any], along: Mapping[int, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row of settings, step and loss for each reading of a run, and one for its end."""
    settings = {
        name: value
        for name, value in run.items()
        if name in COLUMNS and name not in OF_THE_END and value is not None
    }
    end = {"step": run["steps"], "loss": run["loss"], "loss_std": run.get("loss_std")}
    for step, reading in sorted({**along, run["steps"]: end}.items()):
        until_then = {
            name: value * step / run["steps"] for name, value in settings.items() if name in GROWING
        }
        measured = {"steps": step, "loss": reading["loss"], "loss_std": reading.get("loss_std")}
        yield {**settings, **until_then, **measured}


def attempts_folder(path: Path) -> Path:
    """Where the attempt files of the store at `path` lie."""
    return path.with_name(path.name + ".attempts")


def _prepare(connection: sqlite3.Connection, path: Path) -> list[str]:
    """Journal, schema and folder of a store opened to write; returns what is worth saying."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables:
        _check_version(connection, path)
    notes = []
    journal = "DELETE" if on_network_file_system(path) else "WAL"
    (used,) = connection.execute(f"PRAGMA journal_mode = {journal}").fetchone()
    if used.upper() != "WAL":
        notes.append(f"{path} does not use write-ahead logging, which network file systems do not support")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for script in MIGRATIONS[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    attempts_folder(path).mkdir(exist_ok=True)
    return notes


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise DataError(
            f"{path} is an empty database, not a store yet", hint=f"scalecli probe sweep --store {path}"
        )
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise DataError(
            f"{path} is a SQLite database of something else, not a store", hint="give --store another path"
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        fact = f"{path} has schema version {version}; this scalecli knows versions up to {len(MIGRATIONS)}"
        raise DataError(fact, hint="pip install --upgrade scalecli")


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Read-only; in a folder without write permission only a store that no driver has open can be read."""
    address = path.absolute().as_uri()
    connection = sqlite3.connect(f"{address}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.DatabaseError as error:
        connection.close()
        if not isinstance(error, sqlite3.OperationalError) or path.with_name(path.name + "-wal").exists():
            raise
        return sqlite3.connect(f"{address}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return connection


def _keep_result(connection: sqlite3.Connection, result: dict[str, Any], attempt: str) -> bool:
    """Store the result of an attempt unless the run is finished; True if that is news."""
    finished = ", ".join(f"'{status}'" for status in FINISHED)
    changed = connection.execute(
        "INSERT INTO results (run_id, attempt, status, record, created_at) SELECT ?1, ?2, ?3, ?4, ?5 "
        f"WHERE NOT EXISTS (SELECT 1 FROM results WHERE run_id = ?1 AND status IN ({finished})) "
        "ON CONFLICT (run_id, attempt) DO UPDATE SET status = ?3, record = ?4, created_at = ?5 WHERE record != ?4",
        (result["run_id"], attempt, result["status"], _json(result), _now()),
    )
    return changed.rowcount > 0


def _read_attempt(file: Path) -> _Attempt:
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"attempt file {file} cannot be read: {error.strerror or error}") from None
    attempt = _Attempt()
    for number, line in enumerate(lines, start=1):
        if line.strip() and not _add_record(attempt, line, number):
            attempt.damaged.append(number)
    return attempt


def _add_record(attempt: _Attempt, line: bytes, number: int) -> bool:
    """Sort one line of an attempt file into its kind; False if it is not a record."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    match record:
        case {"kind": "result", "run_id": str(run_id), "status": str(status)} if status in STATUSES:
            if attempt.results.get(run_id, {}).get("status") not in FINISHED:
                attempt.results[run_id] = {name: value for name, value in record.items() if name != "kind"}
        case {"kind": "step", "run_id": str(run_id), "step": int(step)}:
            attempt.steps.append((run_id, number, step, record))
        case {"kind": str(kind), "run_id": str(run_id)} if kind not in ("result", "step"):
            attempt.measurements.append((kind, run_id, number, record))
        case _:
            return False
    return True


def _imported(record: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A row of a table as a result: missing cells left out, with an id and a status."""
    present = {name: value for name, value in record.items() if value is not None}
    by_content = "import-" + hashlib.sha256(_json(present).encode()).hexdigest()[:16]
    run_id, status = str(present.get("run_id", by_content)), status_of(present.get("status", "ok"))
    return _checked_result({**present, "run_id": run_id, "status": status}, source)


def _checked_result(record: Mapping[str, Any], source: str) -> dict[str, Any]:
    if not isinstance(record.get("run_id"), str) or record.get("status") not in STATUSES:
        known = ", ".join(STATUSES)
        fact = (
            f"a result from {source} has run_id {record.get('run_id')!r} and status {record.get('status')!r}"
        )
        raise DataError(fact, hint=f"a status is one of {known}")
    return dict(record)


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(plain_value(dict(record)), allow_nan=False, sort_keys=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    """What SQLite and the file system say, as `DataError`."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        hint = "free some space, and run the same command again" if "full" in str(error) else ""
        raise DataError(f"store {path}: {error}", hint=hint) from None
    except OSError as error:
        raise DataError(f"store {path}: {error.strerror or error}") from None
