"""Bad input gets one clear message with its fix and an exit code, no traceback, and leaves the store unharmed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scalecli.cli.app import app
from scalecli.cli.group import ScalecliGroup
from scalecli.data.store import Store

GADRE = Path(__file__).parents[1] / "data" / "gadre_c4_small" / "runs.csv"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def table(folder: Path, *rows: str, head: str = "params,tokens,loss") -> Path:
    path = folder / "runs.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


GOOD = [
    f"{1e6 * 2**i:.0f},{2e7 * 3**j:.0f},{2 + 1 / (i + 1) + 1 / (j + 1)}" for i in range(4) for j in range(4)
]


def refused(result: Result, code: int, *words: str) -> None:
    """One message of the wanted kind: the code, the words, a hint, and nothing on standard output."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert "try: " in result.stderr


def test_missing_column(tmp_path: Path) -> None:
    refused(run("fit", table(tmp_path, *GOOD, head="params,tokens,nll")), 10, "loss", "nll", "--map")


def test_text_in_a_number(tmp_path: Path) -> None:
    result = run("fit", table(tmp_path, *GOOD[:3], "1e6,many,2.5", *GOOD[3:]))
    assert result.exit_code == 12
    assert "runs.csv:5: tokens" in result.stderr
    assert "many" in result.stderr


@pytest.mark.parametrize(
    ("row", "field"), [("1e6,-5,2.5", "tokens"), ("1e6,1e7,nan", "loss"), ("0,1e7,2.5", "params")]
)
def test_values_that_cannot_be(tmp_path: Path, row: str, field: str) -> None:
    result = run("fit", table(tmp_path, *GOOD, row))
    assert result.exit_code == 12
    assert f"runs.csv:{len(GOOD) + 2}: {field}" in result.stderr


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("")
    result = run("fit", path)
    assert result.exit_code == 10
    assert "empty" in result.stderr


def test_two_rows(tmp_path: Path) -> None:
    refused(run("fit", table(tmp_path, *GOOD[:2])), 11, "2")


def test_no_such_file(tmp_path: Path) -> None:
    result = run("fit", tmp_path / "nothing.csv")
    assert result.exit_code == 10
    assert "nothing.csv" in result.stderr


def test_unknown_law(tmp_path: Path) -> None:
    refused(run("fit", table(tmp_path, *GOOD), "--law", "chinchila"), 10, "chinchilla")


def test_fixed_tokens_per_param_is_not_identified(tmp_path: Path) -> None:
    rows = [f"{n:.0f},{20 * n:.0f},{2 + 100 * n**-0.3}" for n in (1e6 * 1.5**i for i in range(12))]
    result = run("fit", table(tmp_path, *rows))
    assert result.exit_code == 22
    assert "params" in result.stderr
    assert "tokens" in result.stderr


def test_unwritable_folder(tmp_path: Path) -> None:
    place = tmp_path / "a_file"
    place.write_text("")
    refused(run("fit", table(tmp_path, *GOOD), "--out", place / "loss.fit.json"), 50, "a_file", "--out")


def test_corpus_too_small(tmp_path: Path) -> None:
    small = tmp_path / "tiny.txt"
    small.write_text("hello")
    store = tmp_path / "runs.db"
    result = run(
        "probe", "train", "--params", "20k", "--tokens", "20k", "--batch-tokens", 512, "--learning-rate", "1e-3",
        "--data", small, "--store", store,
    )  # fmt: skip
    assert result.exit_code == 10
    assert "bytes" in result.stderr
    assert not store.exists()


def test_a_broken_store_is_left_as_it_is(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    store.write_bytes(b"this is no database at all, but somebody may want it" * 10)
    before = store.read_bytes()
    result = run("runs", "list", store)
    assert result.exit_code == 10
    assert store.read_bytes() == before


def test_a_failed_command_leaves_the_store_unharmed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Store.open(path) as store:
        store.put(
            {"kind": "result", "run_id": "a", "status": "ok", "params": 1e6, "tokens": 2e7, "loss": 3.0}
        )
    result = run("probe", "sweep", "--params", "20k", "--learning-rate", "fast", "--store", path)
    assert result.exit_code == 2
    with Store.open(path, write=False) as store:
        assert store.runs()["loss"].tolist() == [3.0]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["fit", "nothing.csv"], 10),
        (["fit"], 2),
        (["no-such-command"], 2),
        (["plan", "--params", "many"], 2),
        (["plan", "--params", "7B"], 40),
        (["plan", "--params", "7B", "--tokens", "1T", "--flops", "1e20"], 40),
        (["plan", "--params", "7B", "--tokens", "1T", "--accelerator", "h1000"], 41),
        (["memory", "--params", "7B", "--tp", "7"], 40),
        (["export", "nothing.json"], 50),
        (["schema", "nonsense"], 50),
    ],
)
def test_json_errors_are_the_last_line_of_stderr(words: list[str], code: int, tmp_path: Path) -> None:
    """`{"error": {"code", "type", "message", "hint"}}`, stdout empty; for usage errors too."""
    os.chdir(tmp_path)
    result = run(*words, "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    error = json.loads(result.stderr.strip().splitlines()[-1])["error"]
    assert set(error) == {"code", "type", "message", "hint"}
    assert error["code"] == code
    assert error["message"]


def test_debug_may_stand_anywhere_and_shows_the_traceback(tmp_path: Path) -> None:
    result = run("fit", tmp_path / "nothing.csv", "--debug")
    assert result.exit_code == 10
    assert "Traceback" in result.stderr


def test_interruption_names_the_command_to_go_on_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scalecli.data.tables.read_runs", interrupted)
    result = run("fit", GADRE, "--where", "a == 1")
    assert result.exit_code == 130
    assert f"scalecli fit {GADRE} --where 'a == 1'" in result.stderr


def test_exit_codes_are_unique() -> None:
    from scalecli import errors

    codes = [
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert len(codes) == len(set(codes))
    assert ScalecliGroup is app.info.cls
