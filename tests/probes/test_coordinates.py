"""The coordinate check passes muP, fails the standard parametrisation, and says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.coordinates.estimate import verdict
from scalecli.probes.coordinates.run import run
from scalecli.probes.family import widened
from scalecli.probes.parametrization import Multipliers

WIDTHS = (16, 32, 64, 128)


@pytest.mark.parametrize(("parametrization", "transfers"), [("mup", True), ("standard", False)])
def test_the_verdict_on_real_networks(
    config: ProbeConfig, corpus: Corpus, parametrization: str, transfers: bool
) -> None:
    probed = replace(config, parametrization=parametrization, base_width=16)  # type: ignore[arg-type]
    configs = [replace(probed, shape=widened(config.shape, width)) for width in WIDTHS]
    found = verdict(list(run(configs, corpus=corpus, steps=6, seeds=3, device="cpu")))
    assert found.transfers is transfers
    assert found.widths == WIDTHS
    assert {slope.name for slope in found.slopes} >= {"logits", "blocks.0.attention", "blocks.1.feed_forward"}
    assert ("rates transfer" if transfers else "grows") in found.sentence


def test_both_parametrisations_agree_at_the_base_width(config: ProbeConfig) -> None:
    shape = replace(config.shape, width=64, heads=2, kv_heads=2)
    mup, standard = (Multipliers.of(shape, kind, 64) for kind in ("mup", "standard"))  # type: ignore[arg-type]
    assert mup.rate == standard.rate
    assert mup.logits == standard.logits
    assert mup.attention == pytest.approx(standard.attention)


def rows(slope: float) -> list[dict]:
    return [
        {"name": "logits", "width": width, "step": 5, "activation": 0.3 * width**slope, "update": 1.0}
        for width in WIDTHS
    ]


@pytest.mark.parametrize(
    ("slope", "word"), [(0.0, "transfer"), (0.1, "transfer"), (0.5, "grows"), (-0.5, "shrinks")]
)
def test_slopes_are_read_off(slope: float, word: str) -> None:
    found = verdict(rows(slope))  # type: ignore[arg-type]
    assert word in found.sentence
    assert found.slopes[0].slope == pytest.approx(slope)
    assert found.transfers is (abs(slope) < 0.25)


def test_too_few_widths_and_divergence_are_errors() -> None:
    with pytest.raises(ProbeError, match="2 widths"):
        verdict(rows(0.0)[:2])  # type: ignore[arg-type]
    broken = rows(0.0)
    broken[1]["update"] = None
    with pytest.raises(ProbeError, match="width 32 has no finite update"):
        verdict(broken)  # type: ignore[arg-type]


def test_widening_keeps_depth_and_head_dimension(config: ProbeConfig) -> None:
    wide = widened(config.shape, 64)
    assert (wide.layers, wide.head_dim, wide.heads, wide.ffn) == (2, config.shape.head_dim, 8, 128)
    with pytest.raises(ProbeError, match="no multiple"):
        widened(config.shape, 20)
