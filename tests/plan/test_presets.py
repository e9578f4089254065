"""Published rules at a target, against the reference figures they were computed by hand for."""

from __future__ import annotations

import pytest

from scalecli.accounting.shape import shape_for_params
from scalecli.data.catalogue import published_laws
from scalecli.plan.document import Preset
from scalecli.plan.presets import presets_for
from scalecli.plan.target import Target


def target(params: float = 1e9, tokens: float = 2e10, non_embedding: float | None = None) -> Target:
    return Target(
        shape=shape_for_params(params, vocab=32000),
        params=params,
        params_non_embedding=params if non_embedding is None else non_embedding,
        tokens=tokens,
        sequence_length=2048,
        accelerator=None,
        count=1,
    )


def preset(found: list[Preset], source: str, quantity: str) -> Preset:
    (only,) = [p for p in found if (p.source, p.quantity) == (source, quantity)]
    return only


@pytest.mark.parametrize(
    ("source", "quantity", "batch", "rate"),
    [
        ("StepLaw", "optimum", 0.44e6, 1.0e-3),
        ("DeepSeek", "optimum", 1.08e6, 9.6e-4),
        ("Porian", "optimum", 1.61e6, 2.1e-3),
        ("DiLoCo data-parallel", "optimum", 0.16e6, 6.9e-4),
        ("Zhang", "critical", 1.23e6, None),
        ("Kaplan", "critical", 2.5e6, None),
        ("Kaplan", "optimum", None, 3.5e-4),
        ("Power Lines", "optimum", 0.0306 * 2e10**0.383 * 2048, None),
        ("Power Lines", "critical", 0.0471 * 2e10**0.462 * 2048, None),
        ("MiniCPM", "optimum", 3.69e6, None),
    ],
)
def test_one_billion_parameters_on_twenty_billion_tokens(
    source: str, quantity: str, batch: float | None, rate: float | None
) -> None:
    """The table of disagreeing presets: N = 1e9 in every count, D = 2e10, loss 2.53; two figures each."""
    found = preset(presets_for(target(), 2.53), source, quantity)
    assert found.batch_tokens == (None if batch is None else pytest.approx(batch, rel=0.03))
    assert found.learning_rate == (None if rate is None else pytest.approx(rate, rel=0.03))


def test_every_verified_record_with_a_preset_name_is_shown() -> None:
    found = {(p.source, p.quantity) for p in presets_for(target(), 2.53)}
    assert found == {
        (law.preset, law.quantity) for law in published_laws() if law.preset and law.workload == "language"
    }
    assert all(law.verified for law in published_laws() if law.preset)


def test_critical_sizes_and_optima_are_never_one_entry() -> None:
    kaplan = [p for p in presets_for(target(), 2.53) if p.source == "Kaplan"]
    assert sorted(p.quantity for p in kaplan) == ["critical", "optimum"]


def test_outside_the_measured_range_a_rule_is_shown_but_not_valid() -> None:
    inside, outside = presets_for(target(1e9, 2e10), 2.53), presets_for(target(7e10, 1.4e12), 1.9)
    assert preset(inside, "StepLaw", "optimum").valid
    far = preset(outside, "StepLaw", "optimum")
    assert not far.valid
    assert "params_non_embedding 6e+07 to 1.1e+09" in far.outside
    assert "measured at params_non_embedding 6e+07 to 1.1e+09" in far.note
    assert far.batch_tokens == pytest.approx(0.58 * 1.4e12**0.571)


def test_non_embedding_rules_read_the_non_embedding_count() -> None:
    whole, part = presets_for(target(1e9), 2.5), presets_for(target(1e9, non_embedding=8e8), 2.5)
    steplaw, smaller = preset(whole, "StepLaw", "optimum"), preset(part, "StepLaw", "optimum")
    assert steplaw.learning_rate
    assert smaller.learning_rate
    assert smaller.learning_rate / steplaw.learning_rate == pytest.approx(0.8**-0.713)
    assert "N non-embedding" in steplaw.note
    assert preset(part, "Porian", "optimum") == preset(whole, "Porian", "optimum")


def test_rules_in_sequences_use_their_own_sequence_length() -> None:
    zhang = preset(presets_for(target(), 2.53), "Zhang", "critical")
    assert zhang.batch_tokens == pytest.approx(93.2 * 1000**0.47 * 512)


def test_without_a_predicted_loss_a_published_law_stands_in_and_says_so() -> None:
    kaplan = preset(presets_for(target(), None), "Kaplan", "critical")
    assert kaplan.batch_tokens == pytest.approx(2.5e6, rel=0.03)
    assert "chinchilla-refit" in kaplan.note
    assert "chinchilla-refit" not in preset(presets_for(target(), 2.53), "Kaplan", "critical").note


def test_a_rule_that_turned_negative_has_no_answer() -> None:
    """Kaplan's rate, 0.003239 - 0.0001395 ln N, crosses zero at 12B parameters."""
    assert preset(presets_for(target(1e10), 2.0), "Kaplan", "optimum").learning_rate is not None
    assert preset(presets_for(target(7e10), 1.9), "Kaplan", "optimum").learning_rate is None
