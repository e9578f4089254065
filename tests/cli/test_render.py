"""What people read: text is shown as it is written, units in brackets and names that users chose included."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from scalecli.cli.app import app


def test_names_and_units_are_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("[red]runs.csv").write_text("run_id,params,tokens,loss\n[bold]a:smile:,1e6,1e7,3.0\n")
    shown = CliRunner().invoke(app, ["runs", "list", "[red]runs.csv"]).stdout
    assert "[bold]a:smile:" in shown
    assert "[red]runs.csv" in shown


def test_heads_of_tables_show_their_unit(tmp_path: Path) -> None:
    steps = tmp_path / "steps.csv"
    steps.write_text(
        "loss,batch_tokens,steps\n" + "".join(f"3,{2**i},{100 + 1000 / 2**i}\n" for i in range(8))
    )
    shown = CliRunner().invoke(app, ["critical-batch", str(steps)]).stdout
    assert "critical batch [tokens]" in shown
    assert "\\" not in shown


def test_an_unknown_loss_is_a_wrong_use(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["fit", str(tmp_path / "runs.csv"), "--loss", "hubert"])
    assert result.exit_code == 2
    assert "huber, least-squares, absolute, envelope" in result.stderr
