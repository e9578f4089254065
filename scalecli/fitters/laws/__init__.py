"""Every law, one file each.

Adding a law takes three edits:

1. its file here: a frozen dataclass as `scalecli.fitters.law` describes it, with the formula in the first line
   of its docstring and the keys of its sources;
2. its import and its line in `LAWS`, in the order of the alphabet;
3. its sources in `data/catalogue/sources.toml` (and published constants, where there are any, in `laws.toml`).

`tests/fitters/test_law_contract.py` then holds it to the contract; it asks for one more thing, an example
(`EXAMPLES` of `tests/fitters/test_law_contract.py`): parameters and columns at which the law is at home.
"""

from __future__ import annotations

import difflib
from typing import Any, cast

from scalecli.errors import DataError
from scalecli.fitters.law import Law
from scalecli.fitters.laws.broken_power import BrokenPower
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.chinchilla_tied import ChinchillaTied
from scalecli.fitters.laws.clark import Clark
from scalecli.fitters.laws.critical_batch import CriticalBatch
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.critical_batch_params_tokens import CriticalBatchParamsTokens
from scalecli.fitters.laws.critical_batch_tokens import CriticalBatchTokens
from scalecli.fitters.laws.data_optimal_size import DataOptimalSize
from scalecli.fitters.laws.diloco import DiLoCo
from scalecli.fitters.laws.encoder_decoder import EncoderDecoder
from scalecli.fitters.laws.envelope import Envelope
from scalecli.fitters.laws.farseer import Farseer
from scalecli.fitters.laws.gadre import Gadre
from scalecli.fitters.laws.hestness import Hestness
from scalecli.fitters.laws.isoflop import IsoFlop
from scalecli.fitters.laws.isoflop_cubic import IsoFlopCubic
from scalecli.fitters.laws.joint_moe import JointMoe
from scalecli.fitters.laws.kaplan import Kaplan
from scalecli.fitters.laws.kaplan_steps import KaplanSteps
from scalecli.fitters.laws.landscape import Landscape
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage
from scalecli.fitters.laws.multi_power import MultiPower
from scalecli.fitters.laws.noise_scale import NoiseScale
from scalecli.fitters.laws.power import Power
from scalecli.fitters.laws.power_floor import PowerFloor
from scalecli.fitters.laws.repeated_data import RepeatedData
from scalecli.fitters.laws.surge import Surge
from scalecli.fitters.laws.three_term import ThreeTerm
from scalecli.fitters.laws.trajectory import Trajectory
from scalecli.fitters.laws.width_depth import WidthDepth

LAWS: tuple[type[Law], ...] = (
    BrokenPower,
    Chinchilla,
    ChinchillaTied,
    Clark,
    CriticalBatch,
    CriticalBatchLoss,
    CriticalBatchParamsTokens,
    CriticalBatchTokens,
    DataOptimalSize,
    DiLoCo,
    EncoderDecoder,
    Envelope,
    Farseer,
    Gadre,
    Hestness,
    IsoFlop,
    IsoFlopCubic,
    JointMoe,
    Kaplan,
    KaplanSteps,
    Landscape,
    LandscapeTwoStage,
    MultiPower,
    NoiseScale,
    Power,
    PowerFloor,
    RepeatedData,
    Surge,
    ThreeTerm,
    Trajectory,
    WidthDepth,
)


def law_named(name: str) -> type[Any]:
    """The law that the command line calls `name`; a `DataError` with close names otherwise.

    A law of one column can be had over another one as `NAME:COLUMN`.

    >>> law_named("power:tokens").inputs
    ('tokens',)
    """
    base, _, column = name.partition(":")
    known = {law.name: law for law in LAWS}
    if base not in known:
        close = difflib.get_close_matches(base, known, n=3) or sorted(known)
        raise DataError(
            f"there is no law {base!r}; close names: {', '.join(close)}", hint="scalecli laws list"
        )
    law = known[base]
    if not column:
        return law
    if not hasattr(law, "over"):
        raise DataError(f"{base} reads {', '.join(law.inputs)}, and no other column can take their place")
    return cast("type[Any]", law.over(column))
