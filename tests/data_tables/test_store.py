"""The store: resumable, idempotent, one row a run, one driver, and unharmed by what goes wrong."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.data.network import on_network_file_system
from scalecli.data.store import MIGRATIONS, Store
from scalecli.data.tables import read_runs
from scalecli.errors import DataError


def write_attempt(store, name, *records, tail=""):
    file = store.attempts / name
    file.write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return file


def step(run_id, number, loss=3.0):
    return {"kind": "step", "run_id": run_id, "step": number, "loss": loss}


def result(run_id, status="ok", **values):
    return {"kind": "result", "run_id": run_id, "status": status, "loss": 2.5, **values}


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "runs.db") as opened:
        yield opened


def test_ingest_is_idempotent_and_follows_a_growing_file(store):
    records = [step("a", 1), step("a", 2), {"kind": "noise", "run_id": "a", "signal": 1.0}]
    first = store.ingest(write_attempt(store, "1.jsonl", *records))
    assert (first.rows, first.steps, first.measurements, first.incomplete) == (0, 2, 1, ("a",))
    assert store.finished() == set()
    second = store.ingest(write_attempt(store, "1.jsonl", *records, step("a", 3), result("a", params=10)))
    assert (second.rows, second.steps, second.measurements, second.incomplete) == (1, 1, 0, ())
    again = store.ingest(store.attempts / "1.jsonl")
    assert (again.rows, again.steps, again.measurements) == (0, 0, 0)
    assert store.finished() == {"a"}
    assert store.steps("a")["step"].tolist() == [1, 2, 3]
    assert store.measurements("noise")["signal"].tolist() == [1.0]


def test_two_readings_of_one_step_are_both_kept(store):
    store.ingest(
        write_attempt(store, "1.jsonl", step("a", 2), {**step("a", 1), "train_loss": 4.0}, step("a", 1))
    )
    assert store.steps("a")["step"].tolist() == [1, 1, 2]


def test_two_attempts_that_finish_make_one_row(store):
    store.ingest(write_attempt(store, "1.jsonl", step("a", 1, 3.1), result("a", loss=2.1)))
    store.ingest(write_attempt(store, "2.jsonl", step("a", 1, 3.2), step("a", 2), result("a", loss=2.2)))
    assert store.runs()["loss"].tolist() == [2.1]
    assert store.steps("a")["loss"].tolist() == [3.1]


def test_a_later_attempt_replaces_a_failed_one_and_never_a_finished_one(store):
    store.ingest(write_attempt(store, "1.jsonl", result("a", "failed"), result("b", "diverged", loss=None)))
    assert store.finished() == {"b"}
    store.ingest(write_attempt(store, "2.jsonl", result("a", loss=2.0), result("b", "failed")))
    assert store.finished() == {"a", "b"}
    assert store.runs().set_index("run_id")["status"].to_dict() == {"a": "ok", "b": "diverged"}


def test_taking_an_old_file_in_again_does_not_hide_a_newer_result(store):
    old = write_attempt(store, "1.jsonl", result("a", "failed", status_reason="first"))
    store.ingest(old)
    store.put({"run_id": "a", "status": "failed", "status_reason": "second"})
    store.ingest(old)
    assert store.runs()["status_reason"].tolist() == ["second"]


def test_a_line_cut_short_is_reported_and_the_rest_kept(store):
    file = write_attempt(
        store, "1.jsonl", step("a", 1), step("a", 2), tail='{"kind": "result", "run_id": "a", "sta'
    )
    report = store.ingest(file)
    assert (report.steps, report.incomplete, report.damaged) == (2, ("a",), (3,))
    assert "sta" in file.read_text()


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"\xff\xfe",
            b"[]",
            b"null",
            b"{",
            b"[" * 10_000,
            b'{"run_id": "a"}',
            b'{"kind": "result", "run_id": "a"}',
        ),
        b'{"kind": "step", "run_id": "a", "step": "x"}',
        b'{"kind": "result", "run_id": "a", "status": "great"}',
    ],
)
def test_damaged_lines_do_not_stop_the_rest(store, line):
    file = store.attempts / "1.jsonl"
    file.write_bytes(line + b"\n" + json.dumps(result("b")).encode() + b"\n")
    report = store.ingest(file)
    assert (report.rows, report.damaged) == (1, (1,))
    assert store.finished() == {"b"}


def test_nan_is_stored_as_missing(store):
    file = store.attempts / "1.jsonl"
    file.write_text('{"kind": "result", "run_id": "a", "status": "diverged", "loss": NaN}\n')
    store.ingest(file)
    assert store.runs()["loss"].isna().tolist() == [True]


def test_planned_runs_are_registered_once_and_in_order(store):
    assert store.plan({"b": {"params": 1}, "a": {"params": 2}}) == 2
    assert store.plan({"a": {"params": 2}, "c": {}}) == 1
    assert list(store.planned()) == ["b", "a", "c"]
    assert store.planned()["a"] == {"params": 2}


def test_the_driver_may_store_a_result_it_knows(store):
    assert store.put({"run_id": "a", "status": "failed", "status_reason": "killed by signal 9"})
    assert store.put({"run_id": "a", "status": "ok", "loss": 2.0})
    assert not store.put({"run_id": "a", "status": "failed"})
    with pytest.raises(DataError, match="status 'splendid'"):
        store.put({"run_id": "b", "status": "splendid"})


def test_runs_have_canonical_columns_first_and_read_as_a_table(store, tmp_path):
    store.ingest(
        write_attempt(store, "1.jsonl", result("a", own=1, params=10, tokens=100), result("b", "failed"))
    )
    assert list(store.runs().columns) == ["run_id", "params", "tokens", "loss", "status", "own"]
    runs = read_runs(tmp_path / "runs.db", require=("params", "tokens", "loss"))
    assert runs.frame["run_id"].tolist() == ["a"]
    assert [(drop.reason, drop.count) for drop in runs.dropped] == [("status failed", 1)]


def test_readings_have_the_settings_of_their_run_and_what_was_trained_until_then(store, tmp_path):
    run = {
        "params": 10,
        "tokens": 400.0,
        "steps": 4,
        "flops": 24e3,
        "batch_tokens": 100.0,
        "tokens_per_second": 9.0,
    }
    read_on_the_way = [step("a", 1, 4.0), step("a", 2, 3.0), step("b", 1), step("c", 1)]
    ends = [result("a", **run), result("b", "diverged", **run), result("d", **run)]
    store.ingest(write_attempt(store, "1.jsonl", *read_on_the_way, *ends))
    readings = read_runs(tmp_path / "runs.db", require=("tokens", "loss"), rows="readings").frame
    assert readings[["run_id", "steps", "tokens", "flops", "loss"]].to_numpy().tolist() == [
        ["a", 1, 100.0, 6e3, 4.0],
        ["a", 2, 200.0, 12e3, 3.0],
        ["a", 4, 400.0, 24e3, 2.5],
    ]
    assert readings["batch_tokens"].eq(100).all()
    assert "tokens_per_second" not in readings


def test_a_store_whose_runs_were_not_read_along_the_way_has_no_readings(store, tmp_path):
    store.ingest(write_attempt(store, "1.jsonl", result("a", steps=4, tokens=400.0)))
    with pytest.raises(DataError, match="read along its way") as told:
        read_runs(tmp_path / "runs.db", rows="readings")
    assert "evaluation.every" in told.value.hint


def test_rows_of_a_table_are_imported_once(store, tmp_path):
    (tmp_path / "runs.csv").write_text("params,loss,status\n1000,3,ok\n2000,2.5,\n3000,,diverged\n")
    table = read_runs(tmp_path / "runs.csv", keep_status=None)
    assert store.import_rows(table) == 3
    assert store.import_rows(table) == 0
    assert store.runs()["status"].tolist() == ["ok", "ok", "diverged"]
    (tmp_path / "twice.csv").write_text("run_id,loss\na,3\na,2.5\n")
    with pytest.raises(DataError, match="'a' stands in 2 rows"):
        store.import_rows(read_runs(tmp_path / "twice.csv"))
    assert len(store.runs()) == 3


def test_a_second_driver_is_refused_and_readers_are_not(store, tmp_path):
    with pytest.raises(DataError, match=f"in use by the driver with pid {os.getpid()}"):
        Store.open(tmp_path / "runs.db")
    store.put({"run_id": "a", "status": "ok"})
    with Store.open(tmp_path / "runs.db", write=False) as reader:
        assert reader.finished() == {"a"}
        with pytest.raises(DataError, match="readonly"):
            reader.put({"run_id": "b", "status": "ok"})


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch):
    import fcntl

    def no_locks(stream, flags):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(DataError, match="cannot be locked: No locks available"):
        Store.open(tmp_path / "runs.db")


DRIVER = """
import json, sys, time
from scalecli.data.store import Store
with Store.open(sys.argv[1]) as store:
    for i in range(10_000):
        file = store.attempts / f"{i}.jsonl"
        file.write_text(json.dumps({"kind": "result", "run_id": str(i), "status": "ok"}) + "\\n")
        store.ingest(file)
        print(i, flush=True)
"""


def test_kill_9_of_the_driver_frees_the_lock_and_loses_nothing(tmp_path):
    path = tmp_path / "runs.db"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, path], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    said = [driver.stdout.readline().strip() for _ in range(20)]
    driver.send_signal(signal.SIGKILL)
    said += driver.stdout.read().split()
    driver.wait()
    driver.stdout.close()
    with Store.open(path) as store:
        assert set(said) <= store.finished()
        files = list(store.attempts.iterdir())
        for file in files:
            store.ingest(file)
        # The last file may have been opened and not yet written when the driver was killed.
        whole = {file.stem for file in files if file.read_text().endswith("\n")}
        assert len(files) - len(whole) <= 1
        assert store.finished() == whole
        assert len(store.runs()) == len(whole)


def test_a_full_disk_is_a_data_error_and_harms_nothing(store):
    store.put({"run_id": "a", "status": "ok"})
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    big = {"run_id": "b", "status": "ok", "note": "x" * 200_000}
    with pytest.raises(DataError, match="full") as caught:
        store.put(big)
    assert "space" in caught.value.hint
    assert store.finished() == {"a"}
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.put(big)
    assert store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_failed_ingest_leaves_no_half(store, monkeypatch):
    file = write_attempt(store, "1.jsonl", step("a", 1), result("a"))
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    file.write_text(file.read_text() + json.dumps({**step("a", 2), "note": "x" * 200_000}) + "\n")
    with pytest.raises(DataError):
        store.ingest(file)
    assert store.finished() == set()
    assert store.steps("a").empty


def test_places_that_cannot_hold_a_store(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        Store.open(tmp_path / "file" / "runs.db")
    with pytest.raises(DataError, match="cannot be written"):
        Store.open(tmp_path / "no" / "runs.db")
    with pytest.raises(DataError, match="no store at"):
        Store.open(tmp_path / "runs.db", write=False)
    (tmp_path / "text.db").write_text("this is not a database at all")
    for write in (True, False):
        with pytest.raises(DataError, match="not a database"):
            Store.open(tmp_path / "text.db", write=write)
    (tmp_path / "empty.db").touch()
    with pytest.raises(DataError, match="empty database"):
        Store.open(tmp_path / "empty.db", write=False)


def test_other_databases_and_newer_stores_are_refused_untouched(tmp_path):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.close()
    with Store.open(tmp_path / "newer.db") as newer:
        newer._connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    for name, words in (("other.db", "something else"), ("newer.db", "schema version")):
        before = (tmp_path / name).read_bytes()
        for write in (True, False):
            with pytest.raises(DataError, match=words):
                Store.open(tmp_path / name, write=write)
        assert (tmp_path / name).read_bytes() == before


def test_an_older_store_is_migrated_with_its_rows(tmp_path, monkeypatch):
    with Store.open(tmp_path / "runs.db") as store:
        store.put({"run_id": "a", "status": "ok"})
    newer = (*MIGRATIONS, "CREATE TABLE extra (x)")
    monkeypatch.setattr("scalecli.data.store.MIGRATIONS", newer)
    with Store.open(tmp_path / "runs.db") as store:
        assert store.finished() == {"a"}
        assert store._connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
        store._connection.execute("SELECT x FROM extra")


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    with Store.open(tmp_path / "runs.db") as store:
        store.put({"run_id": "a", "status": "ok"})
    with monkeypatch.context() as patched:
        patched.setattr("scalecli.data.store.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE extra (x); NONSENSE"))
        with pytest.raises(DataError, match="syntax error"):
            Store.open(tmp_path / "runs.db")
    with Store.open(tmp_path / "runs.db") as store:
        assert store.finished() == {"a"}


def test_network_file_systems_use_no_write_ahead_log(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n/dev/sdb {tmp_path}/local ext4 rw 0 0\n"
    )
    assert on_network_file_system(tmp_path / "runs.db", mounts)
    assert not on_network_file_system(tmp_path / "local" / "runs.db", mounts)
    assert not on_network_file_system(Path("/elsewhere/runs.db"), mounts)
    assert not on_network_file_system(tmp_path, tmp_path / "no such table")
    monkeypatch.setattr("scalecli.data.store.on_network_file_system", lambda path: True)
    with Store.open(tmp_path / "runs.db") as store:
        assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert "write-ahead" in store.notes[0]
        assert store.put({"run_id": "a", "status": "ok"})


RUN_IDS = st.sampled_from(["a", "b"])
RECORDS = st.one_of(
    st.builds(step, RUN_IDS, st.integers(0, 5)),
    st.builds(result, RUN_IDS, st.sampled_from(["ok", "diverged", "failed", "stopped"])),
    st.builds(lambda run_id: {"kind": "noise", "run_id": run_id}, RUN_IDS),
    st.just({"kind": "result"}),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), RECORDS), max_size=12), st.randoms(use_true_random=False))
def test_any_order_of_ingests_keeps_finished_runs_and_one_row_each(tmp_path_factory, written, random):
    path = tmp_path_factory.mktemp("fuzz") / "runs.db"
    with Store.open(path) as store:
        finished: dict[str, str] = {}
        for name, record in written:
            file = store.attempts / f"{name}.jsonl"
            with file.open("a") as stream:
                stream.write(json.dumps(record) + "\n")
            if random.random() < 0.5:
                store.ingest(file)
            rows = store.runs()
            assert len(rows) == len(set(rows.get("run_id", [])))
            now = dict(zip(rows.get("run_id", []), rows.get("status", []), strict=True))
            for run_id in finished:
                assert now[run_id] == finished[run_id]
            finished = {run_id: status for run_id, status in now.items() if status in ("ok", "diverged")}
            assert store.finished() == finished.keys()
