"""Whatever a file holds: a typed error, or a table whose required columns are all finite and within their bounds."""

import json

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scalecli.data.schema import column_for
from scalecli.data.tables import read_runs, write_runs
from scalecli.errors import ScalecliError

NAMES = [
    "params",
    "tokens",
    "loss",
    "flops",
    "steps",
    "batch_tokens",
    "status",
    "optimizer",
    "own",
    "val/loss",
    "",
]
NUMBERS = [
    "1",
    "2.5",
    "1e9",
    "-3",
    "0",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "",
    " 4 ",
    "1,5",
    "1_0",
    "0x1",
    "٣",
    "1e-320",
]
TEXTS = ["ok", "diverged", "true", "None", "NA", "x\ny", '"', "é", "\ud800", "\0", "9" * 400, "{}", "[1]"]
CELLS = st.sampled_from(NUMBERS + TEXTS)
VALUES = st.one_of(
    CELLS,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.lists(st.integers(), max_size=2),
    st.just({"a": 1}),
)
CONDITIONS = st.sampled_from(
    [
        *(
            "loss > 0",
            "loss == loss and tokens < 1e8",
            "own",
            "nothing == 1",
            "params / 0 > 1",
            "status != 'ok'",
        ),
        *(
            "optimizer in ('adamw', 'ok')",
            "col('val/loss') >= 0",
            "not (tokens > 1)",
            "own == 'ok' or own == 1",
        ),
    ]
)
OPTIONS = st.fixed_dictionaries(
    {
        "map": st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), max_size=2),
        "unit": st.dictionaries(st.sampled_from(NAMES), st.sampled_from([1e9, 1e-9, 1e300, 2.0]), max_size=2),
        "where": st.lists(CONDITIONS, max_size=2),
        "require": st.lists(
            st.sampled_from(["params", "tokens", "loss", "flops", "steps", "own"]), max_size=3
        ),
        "keep_status": st.sampled_from([("ok",), None]),
    }
)


def check(path, options):
    try:
        runs = read_runs(path, **options)
    except ScalecliError:
        return
    assert runs.rows_read == len(runs) + sum(drop.count for drop in runs.dropped)
    assert len(runs.lines) == len(runs)
    for name in options["require"]:
        column, values = column_for(name), runs.frame[name].to_numpy(dtype=float)
        assert np.isfinite(values).all()
        assert ((values >= column.low) & (values <= column.high)).all()
        assert np.array_equal(runs.columns([name])[name], values)
    json.dumps(runs.records(), allow_nan=False)
    assert all(np.isfinite(span).all() for span in runs.domain.values())


@st.composite
def csv_texts(draw):
    header = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))
    rows = draw(st.lists(st.lists(CELLS, min_size=1, max_size=6), max_size=5))
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    return "\n".join(delimiter.join(row) for row in [header, *rows])


@settings(deadline=None, max_examples=200)
@given(csv_texts(), OPTIONS)
def test_any_csv(tmp_path_factory, text, options):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    check(path, options)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6), max_size=5), OPTIONS)
def test_any_json_lines(tmp_path_factory, records, options):
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    check(path, options)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.fixed_dictionaries({"params": VALUES, "loss": VALUES, "own": VALUES}), min_size=1, max_size=5
    ),
    OPTIONS,
)
def test_any_parquet(tmp_path_factory, records, options):
    from scalecli.data.records import frame_of

    path = tmp_path_factory.getbasetemp() / "fuzz.parquet"
    write_runs(frame_of(records), path)
    check(path, options)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200), st.sampled_from(["csv", "jsonl", "parquet", "db"]))
def test_any_bytes(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"bytes.{suffix}"
    path.write_bytes(content)
    check(path, {"map": {}, "unit": {}, "where": [], "require": ["loss"], "keep_status": None})


FINITE = st.floats(min_value=1e-300, max_value=1e300)
ROWS = st.lists(
    st.tuples(FINITE, st.integers(1, 2**62), st.one_of(st.none(), st.text())), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=100)
@given(ROWS, st.sampled_from(["csv", "jsonl", "parquet"]))
@example([(1.0, 1, "\r0")], "csv")
def test_numbers_survive_every_format_bit_by_bit(tmp_path_factory, rows, suffix):
    import pandas as pd

    path = tmp_path_factory.getbasetemp() / f"round.{suffix}"
    frame = pd.DataFrame(rows, columns=["loss", "tokens", "note"])
    write_runs(frame, path)
    runs = read_runs(path, require=("loss", "tokens"))
    assert runs.frame["loss"].tolist() == frame["loss"].tolist()
    assert runs.frame["tokens"].tolist() == frame["tokens"].astype(float).tolist()
