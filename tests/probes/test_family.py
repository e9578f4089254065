"""The family of proxy shapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.errors import ProbeError
from scalecli.probes.family import DecoderFamily, member, proxy_shape, shape_of_size


@given(params=st.floats(1.3e4, 1e9))
def test_sizes_are_near_and_shapes_even(params: float) -> None:
    shape = proxy_shape(params, vocab=256)
    assert 1 / 1.4 < shape.params / params < 1.4
    assert shape.head_dim % 2 == 0
    assert shape.layers == 2 or 0.7 < shape.width / shape.layers / 32 < 1.4
    assert 2.6 < shape.ffn / shape.width < 3.01


@given(width=st.integers(2, 100).map(lambda half: 8 * half))
def test_the_family_finds_its_own_members(width: int) -> None:
    size = member(width, 256).params
    assert proxy_shape(size, vocab=256).params == pytest.approx(size, rel=0.2)


@given(params=st.floats(5e4, 1e8), aspect=st.sampled_from([4.0, 8.0, 128.0]))
def test_ladders_can_be_deep_and_narrow(params: float, aspect: float) -> None:
    shape = shape_of_size(DecoderFamily(256, aspect), params)
    assert 1 / 1.7 < shape.params / params < 1.7  # a layer more is a large step in a narrow model
    assert shape.layers == 2 or 0.7 < shape.width / shape.layers / aspect < 1.4


def test_sizes_rise_with_width() -> None:
    sizes = [member(width, 256).params for width in range(16, 600, 8)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("params", [0.0, float("nan"), 1e3])
def test_sizes_without_a_member_are_refused(params: float) -> None:
    with pytest.raises(ProbeError):
        proxy_shape(params, vocab=256)
