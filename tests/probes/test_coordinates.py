"""The coordinate check passes muP, fails the standard parametrisation, and says why."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.coordinates.estimate import verdict
from scalecli.probes.coordinates.formats import FORMATS, cast, rounding, scale_exponent
from scalecli.probes.coordinates.ranges import held
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


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_loses_what_is_outside_its_range(name: str) -> None:
    least, largest = torch.finfo(FORMATS[name]).smallest_normal * 2, torch.finfo(FORMATS[name]).max / 2
    values = torch.rand(4096, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.5
    for scale in (least, largest, 1.0):
        inside = cast(values * scale, name)
        assert inside.below == inside.above == 0
        assert 0 < inside.error <= rounding(name)
    assert cast(values * largest * 8, name).above == 1
    assert cast(values * least * 2.0**-14, name).below == 1
    mixed = cast(torch.cat([values, values * largest * 8, torch.zeros(9)]), name)
    assert mixed.above == 0.5
    tiny = values * least * 2.0**-14
    assert cast(tiny * 2.0 ** scale_exponent(float(tiny.max()), name), name).error <= rounding(name)


def test_gradients_need_scales_to_be_held_in_narrow_formats(config: ProbeConfig, corpus: Corpus) -> None:
    # A small rate leaves the head small, and so all gradients behind it.
    slow = replace(config, learning_rate=config.learning_rate / 100)
    found = {
        (each.precision, each.step): each
        for each in held(list(run([slow], corpus=corpus, steps=4, seeds=2, device="cpu")))
    }
    assert {step for _, step in found} == {0, 4}
    # Until its first step the head is zero, and nothing behind it has a gradient.
    assert found["fp8", 0].parts == ("weight", "activation")
    assert found["fp8", 0].holds
    assert set(found["fp8-lm", 4].parts) == {"weight", "activation", "gradient", "weight gradient"}
    assert found["fp8", 4].holds
    unscaled = found["fp8-unit", 4]
    assert not unscaled.holds
    assert unscaled.part == "gradient"
    assert unscaled.below > 0.5
    scales = found["fp8", 4].scales
    assert scales is not None
    assert scales[0] < 12 < scales[1]  # gradients of a mean over tokens are far smaller than weights


def test_an_infinite_gradient_is_an_error(
    config: ProbeConfig, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalecli.probes.train.trainer import Trainer

    real = Trainer.backward

    def broken(self: Trainer, part: object, *, share: float) -> torch.Tensor:
        loss = real(self, part, share=share)
        self.flat.gradients.fill_(float("inf"))
        return loss

    monkeypatch.setattr(Trainer, "backward", broken)
    with pytest.raises(ProbeError, match=r"weight gradient of .* is not finite after 0 steps"):
        list(run([config], corpus=corpus, steps=2, seeds=1, device="cpu"))


def rows(slope: float) -> list[dict]:
    return [
        {
            "kind": "coordinates",
            "name": "logits",
            "width": width,
            "step": 5,
            "activation": 0.3 * width**slope,
            "update": 1.0,
        }
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
