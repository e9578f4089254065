"""Reading run tables: formats, --map, --unit, --where, what is dropped, what is refused and in what words."""

import io
import json
import sys

import numpy as np
import pandas as pd
import pytest

from scalecli.data.tables import Dropped, read_runs, write_runs
from scalecli.errors import BadRow, DataError, TooFewRuns

FRAME = pd.DataFrame(
    {
        "run_id": ["a", "b", "c", "d"],
        "params": [1_000_000, 2_000_000, 4_000_000, 8_000_000],
        "tokens": [2.5e7, 5e7, 1e8, 2e8],
        "loss": [4.0, 3.5, 3.1, 2.9],
        "optimizer": ["adamw", "muon", "adamw", "sgd"],
    }
)
REQUIRED = ("params", "tokens", "loss")


def table(tmp_path, text, name="runs.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "CSV"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    path = tmp_path / f"runs.{suffix}"
    write_runs(FRAME, path)
    runs = read_runs(path, require=REQUIRED)
    assert runs.frame["run_id"].tolist() == ["a", "b", "c", "d"]
    for name in REQUIRED:
        assert runs.columns([name])[name].tolist() == FRAME[name].tolist()
    assert runs.rows_read == len(runs) == 4
    assert runs.dropped == ()
    assert len(runs.sha256) == 64


def test_standard_input_is_recognised(tmp_path, monkeypatch):
    for suffix in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"runs.{suffix}"
        write_runs(FRAME, path)
        stream = io.TextIOWrapper(io.BytesIO(path.read_bytes()))
        monkeypatch.setattr(sys, "stdin", stream)
        assert read_runs("-", require=REQUIRED).columns(["loss"])["loss"].tolist() == FRAME["loss"].tolist()


def test_map_wins_over_an_existing_column(tmp_path):
    path = table(tmp_path, "params,N,tokens,loss,val\n1,5,7,9,2\n")
    runs = read_runs(path, map={"params": "N", "loss": "val"}, require=REQUIRED)
    assert runs.columns(["params", "loss"]) == {"params": [5.0], "loss": [2.0]}
    assert runs.frame["val"].tolist() == [2]


def test_columns_may_swap_names(tmp_path):
    runs = read_runs(
        table(tmp_path, "params,tokens\n3000,5000\n"), map={"params": "tokens", "tokens": "params"}
    )
    assert runs.columns(["params", "tokens"]) == {"params": [5000.0], "tokens": [3000.0]}


def test_where_runs_after_map_and_unit_and_sees_original_names(tmp_path):
    path = table(tmp_path, "N,billions,loss\n10,1,3\n10,2,2.5\n10,9,2\n")
    options = {
        "map": {"params": "N", "tokens": "billions"},
        "unit": {"tokens": 1e9, "params": 1e6},
        "require": REQUIRED,
    }
    runs = read_runs(path, where=["tokens > 1.5e9", "billions < 5", "params == 1e7"], **options)
    assert runs.columns(["tokens"])["tokens"].tolist() == [2e9]
    assert runs.dropped == (Dropped("--where tokens > 1.5e9", 1), Dropped("--where billions < 5", 1))
    assert runs.lines.tolist() == [3]


def test_rows_of_another_status_are_counted_drops(tmp_path):
    text = "params,tokens,loss,status\n1,1,3,ok\n1,1,nan,diverged\n1,1,,failed\n1,1,2,\n1,1,-1,diverged\n"
    runs = read_runs(table(tmp_path, text), require=REQUIRED)
    assert runs.columns(["loss"])["loss"].tolist() == [3.0, 2.0]
    assert runs.dropped == (Dropped("status diverged", 2), Dropped("status failed", 1))
    assert len(read_runs(table(tmp_path, text), keep_status=None)) == 5


def test_bad_rows_that_where_removes_do_no_harm(tmp_path):
    path = table(tmp_path, "params,tokens,loss\n1,1,3\n1,1,oops\n1,1,nan\n")
    runs = read_runs(path, where="loss > 0", require=REQUIRED)
    assert runs.columns(["loss"])["loss"].tolist() == [3.0]
    assert runs.dropped == (Dropped("--where loss > 0", 2),)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("oops", "'oops' is not a number"),
        ("", "missing"),
        ("nan", "missing"),
        ("-3", "-3 is negative"),
        ("0", "not above 0"),
        ("inf", "not finite"),
        ("-inf", "negative"),
        ("1e999", "not finite"),
        ("1_000", "not a number"),
        ("7B", "not a number"),
        ("0x10", "not a number"),
        ("True", "not a number"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_required_value_that_is_none_is_a_bad_row(tmp_path, cell, words, suffix):
    text = f"params,tokens,loss\n1,1,3\n\n1,{cell},3\n"
    if suffix == "jsonl":
        rows = [{"params": 1, "tokens": 1, "loss": 3}, {"params": 1, "tokens": cell, "loss": 3}]
        text = json.dumps(rows[0]) + "\n\n\n" + json.dumps(rows[1])
    path = table(tmp_path, text, f"runs.{suffix}")
    with pytest.raises(BadRow) as caught:
        read_runs(path, require=REQUIRED)
    error = caught.value
    assert words in error.message
    assert (error.file, error.line, error.field, error.exit_code) == (str(path), 4, "tokens", 12)


def test_lines_count_newlines_inside_quotes(tmp_path):
    path = table(tmp_path, 'note,params,tokens,loss\n"two\nlines",1,1,3\nx,1,-1,3\n')
    with pytest.raises(BadRow) as caught:
        read_runs(path, require=REQUIRED)
    assert caught.value.line == 4


def test_columns_nobody_needs_are_kept_as_they_are(tmp_path):
    path = table(tmp_path, "params,tokens,loss,width,weird\n1,1,3,oops,1;2\n2,2,2,,x\n")
    runs = read_runs(path, require=REQUIRED)
    assert runs.frame["width"].tolist()[0] == "oops"
    assert runs.frame["weird"].tolist() == ["1;2", "x"]
    with pytest.raises(BadRow, match="'oops' is not a number"):
        runs.columns(["width"])


def test_a_scaled_column_must_be_readable(tmp_path):
    path = table(tmp_path, "params,width\n1,oops\n2,\n")
    with pytest.raises(BadRow, match="oops"):
        read_runs(path, unit={"width": 2.0})


def test_what_follows_exactly_is_derived_and_said(tmp_path):
    path = table(tmp_path, "params,steps,batch_sequences,sequence_length,loss\n1000,100,8,128,3\n")
    runs = read_runs(path, require=("params", "tokens", "flops", "loss"))
    assert runs.columns(["tokens", "flops"]) == {"tokens": [102400.0], "flops": [6.0 * 1000 * 102400]}
    said = [note.message for note in runs.notes if note.code == "W-DERIVED"]
    assert len(said) == 3
    assert any("batch_sequences x sequence_length" in message for message in said)
    assert any("6 x params x tokens" in message for message in said)


def test_a_bad_input_of_a_derived_column_is_blamed_itself(tmp_path):
    path = table(tmp_path, "params,steps,batch_tokens,loss\n1,10,5,3\n1,-10,5,3\n")
    with pytest.raises(BadRow) as caught:
        read_runs(path, require=REQUIRED)
    assert (caught.value.field, caught.value.line) == ("steps", 3)


def test_a_missing_column_is_named_with_the_flag_that_supplies_it(tmp_path):
    path = table(tmp_path, "N,D,val_loss\n1,1,3\n")
    with pytest.raises(DataError) as caught:
        read_runs(path, map={"params": "N", "tokens": "D"}, require=REQUIRED)
    assert "no column 'loss' [nats/token]" in caught.value.message
    assert "N, D, val_loss" in caught.value.message
    assert caught.value.hint == "--map loss=val_loss"
    assert caught.value.exit_code == 10


def test_a_misspelt_source_of_a_map_gets_the_map_that_works(tmp_path):
    with pytest.raises(DataError) as caught:
        read_runs(table(tmp_path, "val_loss,N\n3,1\n"), map={"loss": "val_los"})
    assert caught.value.hint == "--map loss=val_loss"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"map": {"loss": "nothing"}}, "no column 'nothing'"),
        ({"unit": {"nothing": 2.0}}, "no column 'nothing'"),
        ({"where": "nothing > 1"}, "nothing is no column"),
        ({"require": ("nothing",)}, "no column 'nothing'"),
    ],
)
def test_names_that_are_not_there(tmp_path, options, words):
    with pytest.raises(DataError, match=words):
        read_runs(table(tmp_path, "params,loss\n1,2\n"), **options)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("runs.csv", b"", "is empty"),
        ("runs.csv", b" \n\n", "is empty"),
        ("runs.csv", b"params,loss\n", "no rows"),
        ("runs.jsonl", b"", "is empty"),
        ("runs.parquet", b"not parquet", "not a readable Parquet file"),
        ("runs.xlsx", b"x", "ends in none of"),
        ("runs.csv", "params,loss\n1,é\n".encode("utf-16"), "not UTF-8"),
        ("runs.csv", b"loss,loss\n1,2\n", "more than one column named loss"),
        ("runs.csv", b"a,b\n1,2,3\n", "3 fields where the header has 2"),
        ("runs.csv", b'a,b\n"1,2\n', "not CSV"),
        ("runs.jsonl", b"{\n", "not JSON"),
        ("runs.jsonl", b"[1]\n", "not an object"),
        ("runs.jsonl", b"[" * 100_000, "not JSON"),
        ("runs.db", b"not a database, just text", "not a database"),
    ],
)
def test_files_that_are_no_run_table(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_runs(path, require=("loss",))


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_runs(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_runs(tmp_path)
    with pytest.raises(DataError, match=r"does not exist|no file name"):
        read_runs("nul\0byte.csv")
    with pytest.raises(DataError, match="cannot be written"):
        write_runs(FRAME, tmp_path / "no" / "folder.csv")
    with pytest.raises(DataError, match="must end in"):
        write_runs(FRAME, tmp_path / "runs.xlsx")


def test_no_row_left_is_too_few_runs_with_the_counts(tmp_path):
    path = table(tmp_path, "params,tokens,loss,status\n1,1,3,failed\n1,1,3,ok\n")
    with pytest.raises(
        TooFewRuns, match=r"none of 2 rows is left \(1 by status failed; 1 by --where loss < 0\)"
    ):
        read_runs(path, where="loss < 0", require=REQUIRED)


def test_a_missing_extra_is_one_message(tmp_path, monkeypatch):
    write_runs(FRAME, tmp_path / "runs.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError) as caught:
        read_runs(tmp_path / "runs.parquet")
    assert caught.value.hint == "pip install 'scalecli[parquet]'"


def test_groups_are_labels_and_must_be_there(tmp_path):
    path = table(tmp_path, "model,params,gap\n1,5,a\n1,6,\n")
    runs = read_runs(path)
    assert runs.groups("model").tolist() == ["1", "1"]
    with pytest.raises(BadRow, match="grouped"):
        runs.groups("gap")
    with pytest.raises(DataError, match="no column 'cluster'"):
        runs.groups("cluster")


def test_domain_spans_the_kept_rows(tmp_path):
    runs = read_runs(table(tmp_path, "params,name,gap\n5,a,1\n6,b,\n900,c,2\n"), where="params < 100")
    assert runs.domain == {"params": (5.0, 6.0)}


@pytest.mark.parametrize(
    ("text", "options", "code", "words"),
    [
        (
            "tokens,steps,batch_tokens,sequence_length\n262144,64,8,512\n",
            {},
            "W-BATCH-UNIT",
            "looks like sequences",
        ),
        (
            "tokens,steps,batch_tokens,sequence_length\n262144,64,8,512\n262144,64,4096,512\n",
            {},
            "W-BATCH-UNIT",
            "in 1 of 2 runs",
        ),
        ("tokens,steps,batch_tokens\n100000,10,8\n", {}, "W-BATCH-UNIT", "times steps x batch_tokens"),
        ("batch_tokens,sequence_length\n64,512\n", {}, "W-BATCH-UNIT", "below sequence_length in 1"),
        ("tokens,loss\n1.4,3\n", {}, "W-UNIT", "--unit tokens=1e9"),
        ("params,tokens,flops\n1e6,1e7,1e3\n", {}, "W-FLOPS", "times 6 x params x tokens"),
        ("seqs\n64\n", {"map": {"batch_tokens": "seqs"}}, "W-BATCH-UNIT", "name says sequences"),
        ("val_bpb\n1.1\n", {"map": {"loss": "val_bpb"}}, "W-LOSS-UNIT", "name says bits"),
    ],
)
def test_mix_ups_of_units_are_noted(tmp_path, text, options, code, words):
    notes = read_runs(table(tmp_path, text), **options).notes
    assert [note.code for note in notes] == [code]
    assert words in notes[0].message


def test_a_sound_table_has_no_notes(tmp_path):
    text = "params,tokens,steps,batch_tokens,sequence_length,flops,loss\n1e6,1e7,1000,1e4,500,6e13,3\n"
    assert read_runs(table(tmp_path, text), require=REQUIRED).notes == ()


def test_semicolons_tabs_and_a_byte_order_mark(tmp_path):
    for text in ("\ufeffparams;loss\n1000;2.5\n", "params\tloss\n1000\t2.5\n"):
        assert read_runs(table(tmp_path, text), require=("params", "loss")).columns(["loss"])["loss"] == [2.5]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "runs.csv"
    write_runs(FRAME, path)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scalecli.data.formats.os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_runs(FRAME.head(1), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs.csv"]


def test_nullable_and_categorical_parquet_columns_are_plain(tmp_path):
    frame = FRAME.assign(
        optimizer=FRAME["optimizer"].astype("category"), seed=pd.array([1, None, 3, 4], dtype="Int64")
    )
    frame.to_parquet(tmp_path / "runs.parquet")
    runs = read_runs(tmp_path / "runs.parquet", where=["optimizer == 'adamw'", "seed > 0"], require=REQUIRED)
    assert runs.frame["run_id"].tolist() == ["a", "c"]
    assert np.array_equal(runs.frame["seed"].to_numpy(), [1.0, 3.0])


def test_a_file_too_large_to_be_a_table_is_refused_unread(tmp_path, monkeypatch):
    path = table(tmp_path, "params,loss\n1000,3\n")
    monkeypatch.setattr("scalecli.data.formats.MAX_FILE_BYTES", 10)
    with pytest.raises(DataError, match="has 19 bytes; at most 10 are read"):
        read_runs(path)


def test_columns_that_follow_from_others_can_be_added_later(tmp_path):
    runs = read_runs(table(tmp_path, "params,tokens\n1000,5000\n"))
    richer = runs.with_derived(["flops", "nothing"])
    assert richer.columns(["flops"])["flops"].tolist() == [6.0 * 1000 * 5000]
    assert [note.code for note in richer.notes] == ["W-DERIVED"]
    assert "flops" not in runs.frame.columns


def test_diverged_rows_are_kept_aside_in_our_names_and_units(tmp_path):
    path = table(
        tmp_path,
        "N,tokens,batch_sequences,sequence_length,loss,status,optimizer\n"
        "1,10,4,128,3.0,ok,adamw\n2,20,8,128,nan,diverged,adamw\n3,30,8,128,,failed,adamw\n"
        "4,40,8,128,inf,diverged,sgd\n",
    )
    names = ("params", "tokens", "batch_tokens", "loss")
    options = {"map": {"params": "N"}, "unit": {"params": 1e6}, "where": "optimizer == 'adamw'"}
    runs = read_runs(path, require=names, **options)
    assert len(runs) == 1
    assert runs.diverged["params"].tolist() == [2e6]
    assert runs.diverged["batch_tokens"].tolist() == [1024]
    assert runs.with_derived(["steps"]).diverged["steps"].tolist() == [20 / 1024]
    assert read_runs(table(tmp_path, "params,loss\n1,2\n")).diverged is None


@pytest.mark.parametrize("count", ["params_non_embedding", "params_active"])
def test_another_count_stands_in_for_params_and_is_remembered(tmp_path, count):
    path = table(tmp_path, f"{count},tokens,loss\n5e6,1e8,3\n")
    runs = read_runs(path, require=REQUIRED)
    assert runs.columns(["params"])["params"].tolist() == [5e6]
    assert (runs.params_kind, runs.notes[0].code) == (count, "W-DERIVED")
    assert read_runs(path, map={"params": count}, require=REQUIRED).params_kind == count
    assert read_runs(path).with_derived(["params"]).params_kind == count
    total = table(tmp_path, f"params,{count},tokens,loss\n6e6,5e6,1e8,3\n")
    assert read_runs(total, require=REQUIRED).params_kind is None
