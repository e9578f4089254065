"""Every law, one file each. Adding one: its file, its import and its line here, its catalogue entry."""

from __future__ import annotations

import difflib
from typing import Any

from scalecli.errors import DataError
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.critical_batch import CriticalBatch
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.critical_batch_params_tokens import CriticalBatchParamsTokens
from scalecli.fitters.laws.critical_batch_tokens import CriticalBatchTokens
from scalecli.fitters.laws.encoder_decoder import EncoderDecoder
from scalecli.fitters.laws.envelope import Envelope
from scalecli.fitters.laws.gadre import Gadre
from scalecli.fitters.laws.hestness import Hestness
from scalecli.fitters.laws.isoflop import IsoFlop
from scalecli.fitters.laws.isoflop_cubic import IsoFlopCubic
from scalecli.fitters.laws.kaplan_steps import KaplanSteps
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage
from scalecli.fitters.laws.noise_scale import NoiseScale
from scalecli.fitters.laws.three_term import ThreeTerm
from scalecli.fitters.laws.width_depth import WidthDepth

LAWS: tuple[type[Any], ...] = (
    Chinchilla,
    CriticalBatch,
    CriticalBatchLoss,
    CriticalBatchParamsTokens,
    CriticalBatchTokens,
    EncoderDecoder,
    Envelope,
    Gadre,
    Hestness,
    IsoFlop,
    IsoFlopCubic,
    KaplanSteps,
    LandscapeTwoStage,
    NoiseScale,
    ThreeTerm,
    WidthDepth,
)


def law_named(name: str) -> type[Any]:
    """The law that the command line calls `name`; a `DataError` with close names otherwise."""
    known = {law.name: law for law in LAWS}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or sorted(known)
        raise DataError(
            f"there is no law {name!r}; close names: {', '.join(close)}", hint="scalecli laws list"
        )
    return known[name]
