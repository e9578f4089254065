"""A run table from an oracle: its exact values with noise of a size that the user names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.oracles import Oracle, oracle_named

if TYPE_CHECKING:
    import pandas as pd


def simulate(
    name: str, settings: Mapping[str, float], *, noise: float, shared: float, seed: int
) -> tuple[Oracle, pd.DataFrame]:
    """The oracle and its table: relative noise of each run, and of what runs of one group share.

    Raises `DataError` for an oracle or a setting that does not exist, and for numbers that no table can be made of.
    """
    import pandas as pd

    kind = oracle_named(name)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise DataError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    oracle: Any = kind(**settings)
    with np.errstate(all="ignore"):  # values that are no numbers are refused below
        frame = pd.DataFrame(oracle.columns()).dropna().reset_index(drop=True)
    random = np.random.default_rng(seed)
    error = noise * random.standard_normal(len(frame))
    if kind.group is not None and shared:
        label = np.unique(frame[kind.group], return_inverse=True)[1]
        error = error + shared * random.standard_normal(label.max() + 1)[label]
    with np.errstate(all="ignore"):
        measured = frame[kind.measured] * np.exp(error)
    if not len(frame) or not (np.isfinite(measured) & (measured > 0)).all():
        said = (
            ", ".join(f"{setting} = {value:g}" for setting, value in settings.items()) or "its own settings"
        )
        raise DataError(f"{name} with {said} and noise {noise:g} has runs without a {kind.measured}")
    return oracle, frame.assign(**{kind.measured: measured})
