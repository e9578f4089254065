"""What a step waits for."""

from __future__ import annotations

import pytest

from scalecli.accounting.flops import training_flops_per_token
from scalecli.accounting.shape import ModelShape
from scalecli.probes.throughput.estimate import Trial, limits
from scalecli.probes.throughput.roofline import Roofline, roofline

SMALL = ModelShape(layers=4, width=128, ffn=344, heads=2, kv_heads=2, vocab=256)
LARGE = ModelShape(layers=4, width=2048, ffn=5504, heads=16, kv_heads=16, vocab=256)
# An H100: what products and copies reach there, and a launch.
RATES = {"matmul_flops": 6e14, "memory_bandwidth": 2.8e12, "launch_seconds": 5e-6}


def of(shape: ModelShape, sequences: int) -> Roofline:
    return roofline(shape, dtype="bfloat16", sequences=sequences, sequence_length=1024, **RATES)


def test_small_models_measure_the_host_and_large_ones_the_device() -> None:
    assert of(SMALL, 1).bound == "launch"
    assert of(LARGE, 32).bound == "compute"


def test_a_few_tokens_wait_for_memory_where_launches_are_free() -> None:
    found = roofline(
        LARGE, dtype="float32", sequences=1, sequence_length=16, **{**RATES, "launch_seconds": 0.0}
    )
    assert found.bound == "memory"


def test_computing_is_the_models_flops() -> None:
    flops = 32 * 1024 * training_flops_per_token(LARGE, 1024)
    assert of(LARGE, 32).compute == pytest.approx(flops / RATES["matmul_flops"], rel=0.05)


def test_the_devices_own_floor_is_named() -> None:
    trials = [
        Trial(
            micro_batch_sequences=size,
            sequence_length=8,
            fits=True,
            predicted_bytes=1,
            tokens_per_second=1.0,
            bound=b,
        )
        for size, b in ((1, "launch"), (2, "memory"), (4, "compute"), (8, "compute"))
    ]
    assert limits(trials).computes_from == 4
    assert limits(trials[:2]).computes_from is None
