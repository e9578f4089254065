"""Each warning on runs made to deserve it, and silence on runs that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from scalecli.data.records import frame_of
from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.checks.proxies import without_small_proxies
from scalecli.fitters.checks.repeats import last_of_trainings
from scalecli.fitters.fit import Fit, FitOptions
from scalecli.fitters.laws import law_named
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.runs import fit_runs

ROW = np.arange(36)
TRUTH = Chinchilla(E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37)


def runs(*, noise: float = 0.002, sizes: int = 12, low: float = 2e7, law: Any = TRUTH) -> pd.DataFrame:
    size, ratio = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(low, 50 * low, sizes), [5.0, 20.0, 80.0])
    )
    x = {"params": size, "tokens": size * ratio}
    error = noise * np.random.default_rng(0).standard_normal(len(size))
    return pd.DataFrame({**x, "loss": law.predict(x) * np.exp(error)})


def table(frame: pd.DataFrame) -> RunTable:
    read = frame_of(frame.to_dict("records"))
    return RunTable(read, np.arange(len(read)), len(read), (), "test", "0")


def fitted(frame: pd.DataFrame, law: str = "chinchilla", draws: int = 50) -> Fit:
    return fit_runs(table(frame), law_named(law), options=FitOptions(draws=draws))


def told(fit: Fit, code: str) -> list[str]:
    return [notice.message for notice in fit.warnings if notice.code == code]


def test_sound_runs_are_no_reason_for_a_warning() -> None:
    assert fitted(runs(), draws=300).warnings == ()


def test_two_recipes_in_one_table_are_noticed() -> None:
    frame = runs().assign(recipe=np.array(["old", "new"])[(ROW + ROW // 12) % 2])
    frame.loc[frame["recipe"] == "new", "loss"] *= 0.98
    (message,) = told(fitted(frame), "W-UNREAD-COLUMN")
    assert message.startswith("recipe accounts for")
    assert "--arms recipe" in message


def test_a_setting_that_the_loss_follows_is_noticed() -> None:
    batch = np.geomspace(1e5, 1e6, 4)[(ROW + ROW // 12) % 4]
    frame = runs().assign(batch_tokens=batch)
    frame["loss"] *= 1 + 0.02 * np.log10(batch / 1e5)
    (message,) = told(fitted(frame), "W-UNREAD-COLUMN")
    assert "batch_tokens" in message
    assert "rises with it" in message


def test_outcomes_and_names_are_no_settings() -> None:
    frame = runs()
    error = np.log(frame["loss"] / TRUTH.predict({n: frame[n].to_numpy() for n in ("params", "tokens")}))
    frame = frame.assign(metric_arc=error, run_id=[f"run {i // 18}" for i in range(36)])
    assert told(fitted(frame), "W-UNREAD-COLUMN") == []


def test_one_axis_that_stands_for_two_is_told() -> None:
    frame = runs()
    fixed = frame[np.isclose(frame["tokens"], 20 * frame["params"])]
    (message,) = told(fitted(fixed, "power-floor"), "W-CONFOUNDED")
    assert "tokens grew as params^1.00" in message
    assert told(fitted(frame, "power-floor"), "W-CONFOUNDED") == []


def test_copies_of_rows_are_counted() -> None:
    frame = runs()
    twice = pd.concat([frame, frame.iloc[:5]], ignore_index=True).assign(seed=range(41))
    (message,) = told(fitted(twice), "W-DUPLICATE-ROWS")
    assert message.startswith("5 of 41 rows")


def checkpoints() -> pd.DataFrame:
    rows = [
        {"name": f"m{i}", "params": size, "tokens": share * 20 * size, "loss": 3.0 - share - 0.1 * i}
        for i, size in enumerate(np.geomspace(2e7, 1e9, 6))
        for share in np.linspace(0.1, 1.0, 10)
    ]
    return pd.DataFrame(rows)


def test_checkpoints_are_noticed_and_the_last_can_be_kept() -> None:
    frame = checkpoints()
    (message,) = told(fitted(frame), "W-CHECKPOINTS")
    assert "--final name" in message
    kept = last_of_trainings(table(frame), "name")
    assert len(kept) == 6
    np.testing.assert_allclose(kept.frame["tokens"], 20 * kept.frame["params"])
    assert kept.dropped[-1].count == 54


def test_runs_of_several_lengths_are_no_checkpoints() -> None:
    frame = runs(sizes=6)
    more = pd.concat([frame.assign(tokens=frame["tokens"] * 4**i) for i in range(3)])
    assert told(fitted(more.assign(name=more["params"].map("{:.3g}".format))), "W-CHECKPOINTS") == []


def test_without_lengths_the_last_is_not_known() -> None:
    with pytest.raises(DataError, match="which checkpoint is the last"):
        last_of_trainings(table(checkpoints().drop(columns=["tokens"])), "name")


def test_values_that_rise_with_scale_are_no_losses() -> None:
    frame = runs()
    assert told(fitted(frame.assign(loss=1 / frame["loss"])), "W-METRIC")
    assert told(fitted(frame), "W-METRIC") == []


def test_proxies_too_small_are_left_out_unless_little_else_is_left() -> None:
    frame = runs(low=4e5)  # 0.4M to 20M parameters
    kept = without_small_proxies(table(frame))
    small = (frame["params"] < 1.25e6) & (6 * frame["params"] * frame["tokens"] < 2.2e15)
    assert 0 < small.sum() < len(frame) / 2
    assert len(kept) == len(frame) - small.sum()
    assert "deshpande2023" in kept.dropped[-1].reason
    tiny = table(runs(low=2e4))
    assert without_small_proxies(tiny) is tiny


def test_a_plateau_is_where_an_endless_axis_gains_less_than_the_scatter() -> None:
    long = runs()
    long["tokens"] *= 1e5
    exact = TRUTH.predict({name: long[name].to_numpy() for name in ("params", "tokens")})
    long["loss"] = exact * np.exp(0.005 * np.random.default_rng(1).standard_normal(36))
    assert any("plateau of tokens" in message for message in told(fitted(long), "W-PLATEAU"))
    assert told(fitted(runs()), "W-PLATEAU") == []


def test_an_optimum_that_grows_unlike_the_data_is_told() -> None:
    odd = Chinchilla(E=1.8, A=30.0, B=20000.0, alpha=0.2, beta=0.6)
    fit = fitted(runs(noise=0.0005, law=odd))
    assert fit.diagnostics["allocation"]["exponent"] == pytest.approx(0.75, abs=0.02)
    assert told(fit, "W-ALLOCATION")
    assert told(fitted(runs()), "W-ALLOCATION") == []


def test_parts_are_left_out_in_turn_and_their_spread_is_told() -> None:
    frame = runs(sizes=9).assign(width=np.tile([256.0, 512.0, 1024.0], 9), depth=8.0)
    fit = fitted(frame)
    parts = [check["part"] for check in fit.diagnostics["part_left_out"]]
    assert {"width = 256", "width = 512", "width = 1024"} <= set(parts)
    low, high = fit.diagnostics["spread"]["headline"]
    assert low <= fit.diagnostics["headline"]["value"] * 1.05
    assert high >= fit.diagnostics["headline"]["value"] * 0.95
    assert fit.diagnostics["spread"]["optimal_params"] is not None


def test_a_part_on_which_the_answer_rests_is_named() -> None:
    frame = runs(noise=0.0005).assign(schedule=np.repeat(["cosine", "linear", "wsd"], 12))
    frame.loc[frame["schedule"] == "wsd", "loss"] *= 1.03
    assert any("schedule = wsd" in message for message in told(fitted(frame), "W-FRAGILE"))


def curve(*, guess: float | None, noise: float = 0.01, points: int = 12) -> pd.DataFrame:
    size = np.geomspace(1e3, 1e8, points)
    loss = 0.05 + 40 * size**-0.3
    loss = loss if guess is None else np.minimum(loss, guess)
    return pd.DataFrame(
        {"tokens": size, "loss": loss * np.exp(noise * np.random.default_rng(2).standard_normal(points))}
    )


def test_data_too_small_to_beat_guessing_are_a_region_of_their_own() -> None:
    fit = fitted(curve(guess=2.0), "hestness")
    guess = fit.diagnostics["regions"]["best_guess"]
    assert guess["runs"] == 4  # the law falls below the level between 2.3e4 and 6.6e4
    assert guess["level"] == pytest.approx(2.0, rel=0.02)
    (message,) = told(fit, "W-SMALL-DATA")
    assert "hestness2017" in message


def test_a_power_law_with_a_floor_has_no_region_of_guesses() -> None:
    fit = fitted(curve(guess=None), "hestness")
    assert fit.diagnostics["regions"]["best_guess"] is None
    assert told(fit, "W-SMALL-DATA") == []


def test_the_checklist_says_what_is_needed_to_repeat_the_fit() -> None:
    listed = fitted(runs()).document()["checklist"]
    assert listed["data"]["rows_used"] == 36
    assert listed["bounds"]["alpha"] == [0.0, 2.5]
    assert listed["objective"]["name"] == "huber_log"
    assert listed["uncertainty"]["method"].startswith("cluster bootstrap")
    few = fitted(runs(sizes=6)).document()["checklist"]
    assert few["uncertainty"]["method"].startswith("wild cluster bootstrap")
