"""Run tables nobody would make: `fit` and `validate` answer with a result or one typed error, never with NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from scalecli.cli.app import app

TYPED = {2, 10, 11, 12, 20, 21, 22}

number = st.one_of(
    st.floats(1e-3, 1e3),
    st.floats(1e6, 1e12),
    st.sampled_from([0.0, -1.0, 1e-300, 1e300, 5e-324, 1.7e308, math.nan, math.inf, 1.0]),
)
ordinary = st.tuples(
    st.sampled_from([1e7, 3e7, 1e8, 3e8]), st.sampled_from([1e8, 1e9, 1e10]), st.floats(1.5, 5.0)
)
row = st.one_of(ordinary, ordinary, ordinary, st.tuples(number, number, number))
laws = st.sampled_from(["chinchilla", "power-floor:tokens", "kaplan", "isoflop", "power"])


def numbers_in(document: Any) -> list[float]:
    if isinstance(document, dict):
        return [number for value in document.values() for number in numbers_in(value)]
    if isinstance(document, list):
        return [number for value in document for number in numbers_in(value)]
    return [document] if isinstance(document, float) else []


def answered(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if result.exit_code == 0:
        assert all(math.isfinite(number) for number in numbers_in(json.loads(result.stdout)))
    else:
        assert result.exit_code in TYPED, result.stderr
        assert result.stdout == ""
        error = json.loads(result.stderr.splitlines()[-1])["error"]
        assert error["code"] == result.exit_code
        assert error["message"]


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(rows=[(1.7e308, 1.0, 1.0)], law="chinchilla")  # more FLOPs than a double holds
@example(rows=[(1e7, 1e8, 1.5)] * 3 + [(1e-300, 1e-300, 1e-3)], law="chinchilla")  # and fewer
@given(rows=st.lists(row, max_size=16), law=laws)
def test_any_table_gets_an_answer(tmp_path: Path, rows: list[tuple[float, float, float]], law: str) -> None:
    file = tmp_path / "runs.csv"
    lines = [",".join(map(repr, values)) for values in rows]
    file.write_text("\n".join(["params,tokens,loss", *lines]) + "\n")
    answered(["fit", str(file), "--law", law, "--draws", "10"])
    answered(["validate", str(file), "--law", law, "--draws", "10"])


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(ordinary, min_size=4, max_size=16), factor=st.sampled_from([1e-200, 1e-9, 1e9, 1e200]))
def test_units_gone_wrong_get_an_answer(
    tmp_path: Path, rows: list[tuple[float, float, float]], factor: float
) -> None:
    file = tmp_path / "runs.csv"
    lines = [f"{n * factor!r},{d!r},{loss!r}" for n, d, loss in rows]
    file.write_text("\n".join(["params,tokens,loss", *lines]) + "\n")
    answered(["fit", str(file), "--draws", "10"])
    answered(["validate", str(file), "--draws", "10"])
