"""Whatever is asked for, a plan is finite, ordered and adds up, or one typed error says why not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.errors import ScalecliError
from scalecli.fitters.fit import Fit
from scalecli.plan.batch import BatchWish
from scalecli.plan.ceiling import BatchCeiling
from scalecli.plan.objectives import Objective
from scalecli.plan.plan import PlanOptions, make_plan
from scalecli.plan.rules.setting import Setting
from scalecli.plan.target import Wish


def between(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log(low), math.log(high)).map(math.exp)


decay = st.none() | st.floats(0.5, 0.9999)
good_settings = st.builds(
    Setting,
    batch_tokens=between(1e3, 1e6),
    learning_rate=between(1e-6, 1.0),
    params=between(1e6, 1e12),
    tokens=between(1e8, 1e14),
    optimizer=st.sampled_from(["adamw", "muon", "sgd", "lion"]),
    beta1=decay,
    beta2=decay,
    epsilon=st.none() | between(1e-15, 1e-3),
    weight_decay=st.none() | between(1e-4, 1.0),
    ema_decay=decay,
    width=st.none() | between(32, 32768),
)
objectives = st.builds(Objective) | st.builds(
    Objective, goal=st.sampled_from(["max-extra-tokens", "exchange"]), amount=between(1e-3, 1e3)
)


@settings(deadline=None, max_examples=60)
@given(
    params=between(1e6, 1e13),
    tokens=between(1e7, 1e15),
    setting=st.none() | good_settings,
    objective=objectives,
    batch=st.none() | between(2048, 1e8),
    ceiling=st.none() | between(2048, 1e8),
    names=st.sets(st.sampled_from(["landscape", "loss", "critical_tokens", "noise_scale"])),
    optimizer=st.sampled_from([None, "adamw", "muon", "sgd", "lion"]),
    follow=st.booleans(),
    replicas=st.none() | st.integers(1, 9),
)
def test_plans(
    fits_named: Callable[[set[str]], list[Fit]],
    params: float,
    tokens: float,
    setting: Setting | None,
    objective: Objective,
    batch: float | None,
    ceiling: float | None,
    names: set[str],
    optimizer: str | None,
    follow: bool,
    replicas: int | None,
) -> None:
    ceilings = () if ceiling is None else (BatchCeiling(tokens=ceiling, reason="as wished"),)
    options = PlanOptions(
        batch=BatchWish(objective=objective, tokens=batch, ceilings=ceilings),
        setting=setting,
        course="critical" if follow else "constant",
    )
    wish = Wish(params=params, tokens=tokens, optimizer=optimizer, replicas=replicas)
    try:
        plan = make_plan(wish, fits_named(names), options)
    except ScalecliError:
        return
    json.dumps(plan.document(), allow_nan=False)
    for interval in (plan.batch.tokens, plan.learning_rate.peak, plan.batch.critical_tokens):
        if interval is not None and interval.low is not None and interval.high is not None:
            assert 0 < interval.low <= interval.value * (1 + 1e-9)
            assert interval.value <= interval.high * (1 + 1e-9)
    assert plan.batch.sequences is not None
    assert plan.batch.sequences % (replicas or 1) == 0
    if batch is None and ceiling is not None:
        assert plan.batch.sequences * plan.batch.sequence_length <= ceiling
    for line in plan.lines:
        assert not isinstance(line.value, float) or None not in (line.low, line.high) or line.no_interval, (
            line
        )
    starts = [stage.from_token for stage in plan.batch.schedule]
    assert starts[0] == 0
    assert all(before < after for before, after in pairwise([*starts, round(tokens)]))
    assert plan.batch.steps is not None
    assert plan.batch.steps * max(s.batch_tokens for s in plan.batch.schedule) >= round(tokens)
    for name in ("beta1", "beta2", "ema_decay"):
        value = getattr(plan.optimizer, name)
        assert value is None or 0 <= value < 1
