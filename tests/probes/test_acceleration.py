"""What a GPU needs of a step: nothing that waits for values, memory that stays, code that compiles."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo.backends.registry import lookup_backend
from torch.utils._python_dispatch import TorchDispatchMode

from scalecli.data.corpus import Corpus
from scalecli.probes.config import Conduct, ProbeConfig
from scalecli.probes.decoder import rotary, rotate
from scalecli.probes.train.acceleration import Acceleration
from scalecli.probes.train.trainer import Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPILERS_OWN = "ignore:The .grad attribute of a Tensor that is not a leaf"


class Operations(TorchDispatchMode):
    """The names of all operations that are launched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


def test_a_step_waits_for_no_value(config: ProbeConfig, corpus: Corpus) -> None:
    runs = [replace(config, seed=seed, conduct=Conduct(micro_batch_sequences=4)) for seed in range(2)]
    trainer = Trainer(runs, corpus, device=CPU)
    trainer.advance(1.0)
    with Operations() as launched:
        trainer.advance(1.0)
    assert "aten.bmm.default" in launched.names
    waiting = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.equal.default"}
    assert not waiting & launched.names


def test_what_a_step_reads_and_writes_stays_where_it_is(config: ProbeConfig, corpus: Corpus) -> None:
    trainer = Trainer([config], corpus, device=CPU)

    def addresses() -> dict[str, int]:
        found = {name: value.data_ptr() for name, value in trainer.model.named_parameters()}
        found |= {f"{name}.grad": value.grad.data_ptr() for name, value in trainer.model.named_parameters()}
        for number, state in enumerate(trainer.optimizers[0].state.values()):
            found |= {f"{number}.{name}": value.data_ptr() for name, value in state.items()}
        return found

    trainer.advance(1.0)
    before = addresses()
    for factor in (1.0, 0.5):
        trainer.advance(factor)
    assert addresses() == before


def test_every_parameter_is_aligned_and_what_lies_between_stays_zero(
    config: ProbeConfig, corpus: Corpus
) -> None:
    """Compiled code reads sixteen bytes at a time; a head of 65 words by 6 numbers ends in between."""
    odd = replace(config.shape, width=6, heads=1, kv_heads=1, ffn=5, vocab=config.shape.vocab + 1)
    runs = [replace(config, shape=odd, seed=seed) for seed in range(2)]
    trainer = Trainer(runs, corpus, device=CPU)
    flat = trainer.flat
    for _ in range(3):
        trainer.advance(1.0)
    for parameter in flat.parameters.values():
        assert all(copy.data_ptr() % 16 == 0 and grad.data_ptr() % 16 == 0
                   for copy, grad in zip(parameter, parameter.grad, strict=True))  # fmt: skip
    own = torch.zeros_like(flat.weights, dtype=torch.bool)
    for span in flat.spans.values():
        own[:, span] = True
    assert (~own).any()
    assert not flat.weights[~own].any()
    assert not flat.gradients[~own].any()


def test_rotary_positions_are_the_same_in_either_form() -> None:
    x, rotation = torch.randn(3, 16, 2, 8), rotary(16, 8)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    angles = torch.polar(torch.ones(16, 1, 4), torch.atan2(rotation[..., 1], rotation[..., 0]))
    expected = torch.view_as_real(pairs * angles).flatten(-2)
    compiled = torch.compile(rotate, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(rotate(x, rotation), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(compiled(x, rotation), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings(COMPILERS_OWN)
def test_compiled_steps_are_the_plain_ones_and_blocks_share_their_code(
    config: ProbeConfig, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced whole and differentiated by the compiler, without the slow generation of code."""
    graphs: list[torch.fx.GraphModule] = []

    def traced(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=traced, fullgraph=True))
    runs = [replace(config, shape=replace(config.shape, layers=3), seed=seed) for seed in range(2)]
    plain, fast = (
        Trainer(runs, corpus, device=CPU, acceleration=Acceleration(each)) for each in (False, True)
    )
    for _ in range(3):
        torch.testing.assert_close(fast.advance(1.0), plain.advance(1.0), rtol=1e-4, atol=1e-5)
    assert [one.mean for one in fast.evaluate()] == pytest.approx([one.mean for one in plain.evaluate()])
    assert len(graphs) == 2  # a block's, and the losses'


def test_nothing_is_compiled_or_recorded_where_it_does_not_pay(config: ProbeConfig) -> None:
    assert Acceleration.of([config], CPU, 1) == Acceleration()
    assert Acceleration.of([config], CUDA, 1) == Acceleration(recorded=True)
    assert Acceleration.of([config], CUDA, 2) == Acceleration()
    assert Acceleration.of([replace(config, steps=10**12)], CUDA, 1) == Acceleration(
        compiled=True, recorded=True
    )


@pytest.mark.gpu
@pytest.mark.filterwarnings(COMPILERS_OWN)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    "how", [Acceleration(recorded=True), Acceleration(True, False), Acceleration(True, True)]
)
def test_accelerated_steps_are_the_plain_ones(config: ProbeConfig, corpus: Corpus, how: Acceleration) -> None:
    runs = [replace(config, seed=seed, learning_rate=rate) for seed, rate in ((0, 3e-3), (1, 1e-2))]
    plain, fast = Trainer(runs, corpus, device=CUDA), Trainer(runs, corpus, device=CUDA, acceleration=how)
    for step in range(12):
        factor = 1.0 - step / 20
        torch.testing.assert_close(fast.advance(factor), plain.advance(factor), rtol=1e-4, atol=1e-5)
    for one, other in zip(fast.evaluate(), plain.evaluate(), strict=True):
        assert one.mean == pytest.approx(other.mean, rel=1e-4)
    state = fast.state()
    after = [fast.advance(0.5) for _ in range(6)]
    fast.restore(state)
    for expected in after:
        torch.testing.assert_close(fast.advance(0.5), expected, rtol=1e-4, atol=1e-5)
