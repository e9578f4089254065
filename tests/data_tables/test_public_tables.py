"""The public tables in tests/data: each with its licence, and readable as a run table with the right --map."""

from pathlib import Path

import pytest

from scalecli.data.tables import Dropped, read_runs

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(
    "folder", sorted(path for path in DATA.iterdir() if path.is_dir()), ids=lambda p: p.name
)
def test_every_set_says_where_it_is_from_and_under_which_licence(folder):
    readme = (folder / "README.md").read_text()
    assert "Licence:" in readme
    assert "commit" in readme
    assert (folder / "LICENSE.txt").exists() or "stated" in readme or "CC" in readme


@pytest.mark.parametrize(
    ("table", "mapping", "where", "require", "rows", "dropped"),
    [
        ("gadre_c4_small/runs", {"loss": "loss_c4_val"}, (), ("params", "tokens", "loss", "flops"), 31, ()),
        ("porian_openwebtext2/isoflop_points", {}, (), ("params", "tokens", "loss", "flops"), 581, ()),
        (
            "repeated_data/runs",
            {},
            "in_published_fit == 1",
            ("params", "tokens", "unique_tokens", "loss"),
            182,
            (Dropped("--where in_published_fit == 1", 126),),
        ),
        (
            "routed_lm/curves",
            {"params": "params_active", "loss": "loss_validation", "steps": "step"},
            "step > 0 and loss > 0",
            ("params", "num_experts", "steps", "loss"),
            4868,
            (Dropped("--where step > 0 and loss > 0", 203),),
        ),
        (
            "lr_schedule_curves/curves",
            {"learning_rate": "lr", "steps": "step"},
            (),
            ("learning_rate", "loss"),
            4162,
            (),
        ),
        ("nmt_data_curves/curves", {"tokens": "training_examples"}, (), ("tokens", "loss"), 53, ()),
        (
            "small_batch_lm/best_by_batch_size",
            {"batch_tokens": "batch_size_sequences", "learning_rate": "lr"},
            (),
            ("batch_tokens", "learning_rate", "loss"),
            7,
            (),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" in value else "",
)
def test_every_set_is_a_run_table(table, mapping, where, require, rows, dropped):
    runs = read_runs(DATA / f"{table}.csv", map=mapping, where=where, require=require)
    assert len(runs) == rows
    assert runs.dropped == dropped
    assert set(runs.columns(require)) == set(require)


def test_a_missing_loss_in_real_data_is_found_by_its_line():
    from scalecli.errors import BadRow

    with pytest.raises(
        BadRow, match=r"curves\.csv:1895: loss_validation: is missing or NaN \(and 7 more rows\)"
    ):
        read_runs(DATA / "routed_lm" / "curves.csv", require=("loss_validation",))


def test_a_batch_in_sequences_is_noticed_by_its_name():
    runs = read_runs(
        DATA / "small_batch_lm" / "best_by_batch_size.csv", map={"batch_tokens": "batch_size_sequences"}
    )
    assert [note.code for note in runs.notes] == ["W-BATCH-UNIT"]
