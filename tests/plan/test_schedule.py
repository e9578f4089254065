"""A batch that follows the critical batch: tokens are conserved, steps are whole, curves may fall."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.errors import ScalecliError
from scalecli.export.formats import render
from scalecli.fitters.fit import Fit
from scalecli.plan.batch import BatchWish
from scalecli.plan.course import Table
from scalecli.plan.document import Stage
from scalecli.plan.plan import PlanOptions, make_plan
from scalecli.plan.schedule import batch_schedule, steps_of
from scalecli.plan.target import Wish


def spans(stages: list[Stage], tokens: int) -> list[int]:
    starts = [stage.from_token for stage in stages]
    return [after - before for before, after in pairwise([*starts, tokens])]


@settings(deadline=None)
@given(
    unit=st.integers(1, 64).map(lambda n: n * 2048),
    multiple=st.integers(1, 200),
    steps=st.integers(2, 10**6),
    remainder=st.integers(0, 10**5),
    power=st.floats(-1.5, 1.5),
)
def test_every_stage_is_whole_steps_and_together_they_are_the_run(
    unit: int, multiple: int, steps: int, remainder: int, power: float
) -> None:
    batch = unit * multiple
    tokens = batch * steps + remainder
    stages = batch_schedule(tokens, batch, unit, lambda seen: seen**power)
    assert stages[0].from_token == 0
    assert sum(spans(stages, tokens)) == tokens
    assert all(span > 0 for span in spans(stages, tokens))
    for stage, span in zip(stages[:-1], spans(stages, tokens)[:-1], strict=True):
        assert span % stage.batch_tokens == 0
    assert all(stage.batch_tokens % unit == 0 and stage.batch_tokens > 0 for stage in stages)
    assert all(before.batch_tokens != after.batch_tokens for before, after in pairwise(stages))
    assert steps_of(stages, tokens) >= sum(spans(stages, tokens)) // max(s.batch_tokens for s in stages)


def test_a_rising_critical_batch_ends_in_the_full_batch_and_saves_no_tokens_but_steps() -> None:
    tokens, batch = 10**10, 2**20
    stages = batch_schedule(tokens, batch, 2**14, lambda seen: seen**0.47)
    sizes = [stage.batch_tokens for stage in stages]
    assert sizes == sorted(sizes)
    assert sizes[-1] == batch
    assert steps_of(stages, tokens) > math.ceil(tokens / batch)
    for stage in stages[1:]:  # the batch doubles half an octave before the critical one has reached its share
        share = stage.batch_tokens / batch / math.sqrt(2)
        assert stage.from_token == pytest.approx(tokens * share ** (1 / 0.47), rel=0.03)


def test_a_falling_curve_lets_the_batch_fall() -> None:
    sizes = [stage.batch_tokens for stage in batch_schedule(10**9, 2**16, 2**12, lambda seen: seen**-0.3)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 2**16


def test_a_flat_curve_is_one_stage() -> None:
    assert batch_schedule(10**9, 2**18, 2**12, lambda _: 3.0) == [Stage(from_token=0, batch_tokens=2**18)]


@pytest.mark.parametrize("names", [("critical_tokens",), ("critical_loss", "loss")])
def test_the_plan_follows_the_critical_batch_in_what_the_layout_runs(
    fits: dict[str, Fit], names: tuple[str, ...]
) -> None:
    wish = Wish(params=1e9, tokens=2e10, accelerator="h100-80g", count=8)
    plan = make_plan(wish, [fits[name] for name in names], PlanOptions(course="critical"))
    assert plan.memory is not None
    unit = plan.memory.micro_batch_sequences * plan.memory.data_parallel * plan.batch.sequence_length
    assert len(plan.batch.schedule) > 1
    assert all(stage.batch_tokens % unit == 0 for stage in plan.batch.schedule)
    assert plan.batch.steps == steps_of(plan.batch.schedule, 20_000_000_000)


@pytest.mark.parametrize("names", [(), ("critical",)])
def test_without_a_fitted_course_a_published_one_is_followed(
    fits: dict[str, Fit], names: tuple[str, ...]
) -> None:
    """A critical batch at one loss has no course either."""
    plan = make_plan(
        Wish(params=1e9, tokens=2e10), [fits[name] for name in names], PlanOptions(course="critical")
    )
    (line,) = [line for line in plan.lines if line.name == "batch schedule"]
    assert line.source == "bergsma2025power"
    assert str(line.warning).startswith("folklore")
    assert plan.batch.schedule[0].batch_tokens < plan.batch.schedule[-1].batch_tokens


def test_the_rate_follows_the_root_of_the_batch_and_ends_at_the_peak(fits: dict[str, Fit]) -> None:
    plan = make_plan(Wish(params=1e9, tokens=2e10), [fits["critical_tokens"]], PlanOptions(course="critical"))
    last = plan.batch.schedule[-1]
    assert last.learning_rate_factor == 1.0
    for stage in plan.batch.schedule:
        assert stage.learning_rate_factor == pytest.approx((stage.batch_tokens / last.batch_tokens) ** 0.5)


def test_a_probes_table_gives_its_course_and_may_fall(tmp_path: Path) -> None:
    path = tmp_path / "batches.csv"
    path.write_text("tokens,batch_tokens\n1000,4096\n10000,16384\n100000,8192\n")
    plan = make_plan(
        Wish(params=1e9, tokens=2e10),
        [],
        PlanOptions(course=Table.read(path), batch=BatchWish(tokens=2**19)),
    )
    sizes = [stage.batch_tokens for stage in plan.batch.schedule]
    assert sizes[-1] == 2**19
    assert max(sizes) == 2**20
    assert min(sizes) == sizes[0] == 2**18
    peak = next(stage for stage in plan.batch.schedule if stage.batch_tokens == 2**20)
    assert 0.01 * 2e10 < peak.from_token < 0.1 * 2e10
    heads, *rows = (row.split(",") for row in render(plan, "batch-table").split())
    assert heads == ["from_step", "from_token", "batch_tokens", "learning_rate_factor"]
    assert [int(row[2]) for row in rows] == sizes
    seen = 0
    for row, after in pairwise(rows):  # the steps of every stage carry its tokens, no more and no fewer
        seen += (int(after[0]) - int(row[0])) * int(row[2])
        assert seen == int(after[1])
    assert "## Batch over training" in render(plan, "markdown")


@pytest.mark.parametrize("rows", ["1000,4096", "1000,4096\n1000,8192", "0,4096\n1000,8192"])
def test_a_table_that_is_no_schedule(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "batches.csv"
    path.write_text(f"tokens,batch_tokens\n{rows}\n")
    with pytest.raises(ScalecliError):
        Table.read(path)
