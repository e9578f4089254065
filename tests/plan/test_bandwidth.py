"""Bandwidth between replicas, against the published simulations (10B parameters, a step of 0.8 s, two replicas)."""

import pytest

from scalecli.plan.bandwidth import Averaging, every_so_often, every_step, streaming

AT = {"params": 10e9, "replicas": 2, "step_seconds": 0.8}
GIGABIT = 1e9


@pytest.mark.parametrize(
    ("averaging", "utilisation", "published", "tolerance"),
    [
        # Charles et al. (2503.09799), table 6, in steps of 1.2x to 1.3x of bandwidth.
        (every_step(), 0.5, 104.8, 0.25),
        (every_step(), 0.8, 184.2, 0.25),
        (every_step(), 0.9, 222.3, 0.25),
        (every_so_often(100), 0.5, 1.4, 0.45),
        # Kale et al. (2502.12996), table 4: fp4, one inner step of overlap.
        (streaming(100, 48), 0.5, 0.4, 0.5),
        (streaming(100, 48), 0.9, 1.4, 0.5),
        (streaming(30, 48), 0.5, 1.4, 0.5),
        (streaming(30, 48), 0.9, 2.4, 0.5),
    ],
)
def test_published_bandwidths(
    averaging: Averaging, utilisation: float, published: float, tolerance: float
) -> None:
    found = averaging.bandwidth(**AT, utilisation=utilisation) / GIGABIT  # type: ignore[arg-type]
    assert found == pytest.approx(published, rel=tolerance)


def test_averaging_every_hundred_steps_takes_a_hundredth_of_the_mean_bandwidth() -> None:
    often, seldom = (every_so_often(h).mean_bandwidth(**AT) for h in (1, 100))  # type: ignore[arg-type]
    assert often == pytest.approx(100 * seldom)
    assert seldom == pytest.approx(10e9 * 16 / 80)


def test_streams_have_a_mean_and_a_peak() -> None:
    found = streaming(100, 48)
    assert found.fragments == 16
    mean, peak = found.mean_bandwidth(**AT), found.peak_bandwidth(**AT)  # type: ignore[arg-type]
    assert mean == pytest.approx(0.5 * GIGABIT)
    assert peak == pytest.approx(mean * 100 / 16)
    assert found.exposed_seconds(**AT, bits_per_second=peak) == pytest.approx(0)  # type: ignore[arg-type]
    assert found.exposed_seconds(**AT, bits_per_second=peak / 2) > 0  # type: ignore[arg-type]
    assert every_so_often(100).peak_bandwidth(**AT) == float("inf")  # type: ignore[arg-type]


def test_a_delay_of_so_many_steps_hides_a_synchronisation() -> None:
    assert every_so_often(100).steps_to_hide(**AT, bits_per_second=20 * GIGABIT) == pytest.approx(10)  # type: ignore[arg-type]
