"""Fixtures of the plan's tests."""

from __future__ import annotations

import pytest
from plan_worlds import known_fits

from scalecli.fitters.fit import Fit


@pytest.fixture(scope="session")
def fits() -> dict[str, Fit]:
    return known_fits()
