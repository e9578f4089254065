"""Layout search: constraints, schedules, order, and what is said when nothing fits."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.pipeline import bubble, in_flight
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator, accelerator
from scalecli.errors import DoesNotFit, PlanError
from scalecli.plan.elastic import on_fewer_devices
from scalecli.plan.layout import Candidate, Choice, Demand, _candidates, _reckoned, _timed, search_layouts
from scalecli.plan.step.conditions import STANDARD

LLAMA_13B = ModelShape(layers=40, width=5120, ffn=13824, heads=40, kv_heads=40, vocab=32000)
LLAMA_70B = ModelShape(layers=80, width=8192, ffn=28672, heads=64, kv_heads=8, vocab=128256)
GPT_1T = ModelShape(
    layers=128, width=25600, ffn=102400, heads=160, kv_heads=160, vocab=51200, activation="gelu", norm="layer"
)
A100, H100, L4 = accelerator("a100-80g"), accelerator("h100-80g"), accelerator("l4")


def demand(
    shape: ModelShape, device: Accelerator, count: int, batch: int, length: int = 2048, **kinds: object
) -> Demand:
    return Demand(
        shape=shape, sequence_length=length, batch_sequences=batch, accelerator=device, count=count,
        **({"recipe": Recipe()} | kinds),  # type: ignore[arg-type]
    )  # fmt: skip


def search(
    shape: ModelShape, device: Accelerator, count: int, batch: int, length: int = 2048, **kinds: object
) -> list[Choice]:
    return search_layouts(demand(shape, device, count, batch, length, **kinds))


def tried(*wish: object) -> list[Candidate]:
    return list(_candidates(demand(*wish)))  # type: ignore[arg-type]


def test_micro_batch_one_without_recomputation_is_preferred_when_it_fits() -> None:
    """The finding of Hagemann et al. (2311.05610), section 4, for mixed-precision AdamW and ZeRO-1."""
    best = search(LLAMA_13B, A100, 64, 2048, recipe=Recipe(master_weights=True))[0]
    assert best.micro_batch_sequences == 1
    assert best.recipe.recompute == "none"
    assert best.layout.tp <= 2
    assert best.step is not None
    assert best.step.utilisation("full") == pytest.approx(0.705, rel=0.05)


def test_seventy_billion_on_512_devices() -> None:
    best, *others = search(LLAMA_70B, H100, 512, 1024, length=4096)
    assert best.layout.devices == 512
    assert best.device_bytes <= H100.memory_bytes
    assert best.step is not None
    assert 0.35 < best.step.mfu < 0.65
    assert others
    assert min(other.seconds for other in others) > best.seconds / 1.03
    assert any("slower" in other.reason for other in others)
    cuts = [(o.layout.tp, o.layout.pp, o.layout.cp) for o in (best, *others)]
    assert len(set(cuts)) == len(cuts)


def test_the_schedules_of_a_pipeline_are_all_tried() -> None:
    found = {(c.layout.schedule, c.layout.virtual_stages > 1) for c in tried(LLAMA_70B, H100, 64, 256)}
    assert found == {
        ("1f1b", False), ("zero-bubble", False), ("interleaved", True), ("breadth-first", False),
        ("breadth-first", True),
    }  # fmt: skip


def test_few_micro_batches_call_for_a_schedule_with_a_small_bubble() -> None:
    """16 devices that only a pipeline can fill: the batch has as many sequences as stages."""
    slow = replace(A100, link_bandwidth=1e9, network_bandwidth=0.5e9, devices_per_node=2)
    best = search(replace(LLAMA_13B, layers=32), slow, 16, 16, recipe=Recipe(optimizer="sgd"))[0]
    assert best.layout.pp > 1
    assert best.layout.schedule != "1f1b"


def test_a_slow_network_calls_for_shards_within_a_node() -> None:
    """Low-bandwidth partitioning on Frontier: shards stay where links are fast (Dash et al., 2501.04266)."""
    slow = replace(A100, network_bandwidth=1e9)
    wish = demand(LLAMA_13B, slow, 64, 512, micro_batch_sequences=1)
    candidates = [c for c in _candidates(wish) if c.layout.sharding == "zero3" and c.layout.dp == 64]
    hybrid, whole = (
        min(c.seconds for c in candidates if c.layout.shard_group == group) for group in (8, None)
    )
    assert hybrid < 0.5 * whole


def test_a_long_sequence_is_cut() -> None:
    best = search(LLAMA_13B, H100, 64, 64, length=131072)[0]
    assert best.layout.cp > 1 or best.layout.tp > 1
    assert best.device_bytes <= H100.memory_bytes


def test_no_layout_for_a_batch_that_does_not_divide() -> None:
    with pytest.raises(PlanError, match="batch of 3 sequences"):
        search(ModelShape(layers=3, width=96, ffn=96, heads=3, kv_heads=3, vocab=99), H100, 64, 3)


def test_what_does_not_fit_has_a_budget_that_adds_up_and_a_remedy() -> None:
    with pytest.raises(DoesNotFit) as caught:
        search(GPT_1T, L4, 1, 1)  # two layers of weights alone are more
    assert sum(caught.value.budget.values()) > L4.memory_bytes
    assert "devices" in caught.value.hint


LLAMA_7B = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)
A100_40G = accelerator("a100-40g")


def test_layers_are_recomputed_offloaded_or_kept_as_memory_and_link_allow() -> None:
    """Wu et al. (2408.10013): offload what hides, recompute what is still too much, keep the rest."""
    wish = demand(LLAMA_7B, A100_40G, 4, 64, 4096, micro_batch_sequences=4, held={"dp": 4})
    best = search_layouts(wish)[0]
    recomputed, offloaded = best.recipe.recompute_layers, best.layout.offload_layers
    assert recomputed is not None
    assert offloaded is not None
    assert 0 < recomputed < offloaded < 32
    assert best.timed.offload == 0
    assert best.timed.offload_bandwidth <= best.timed.offload_link
    assert best.device_bytes <= A100_40G.memory_bytes
    fewer = replace(
        best,
        recipe=replace(best.recipe, recompute_layers=recomputed - 1),
        layout=replace(best.layout, offload_layers=offloaded - 1),
    )
    assert reckoned(wish, fewer).device_bytes > A100_40G.memory_bytes
    alike = replace(
        best,
        recipe=replace(best.recipe, recompute_layers=None),
        layout=replace(best.layout, offload="none", offload_layers=None),
    )
    assert reckoned(wish, alike).seconds > 1.1 * best.seconds


def reckoned(wish: Demand, choice: Choice) -> Choice:
    timed = _timed(wish, choice.layout, choice.recipe, choice.micro_batch_sequences)
    return _reckoned(wish, timed)


def test_nothing_differs_by_layer_where_that_gains_little_or_layers_are_said() -> None:
    best = search(LLAMA_70B, H100, 512, 1024)[0]
    assert best.recipe.recompute_layers is None
    wished = Recipe(recompute="full", recompute_layers=12)
    found = search(LLAMA_7B, A100_40G, 4, 64, 4096, micro_batch_sequences=4, recipe=wished)
    assert {choice.recipe.recompute_layers for choice in found} == {12}


def test_nothing_is_offloaded_to_save_time_where_nothing_hides() -> None:
    exposed = replace(STANDARD, overlap=replace(STANDARD.overlap, data=0.0))
    found = search(
        LLAMA_7B, A100_40G, 4, 64, 4096, micro_batch_sequences=4, held={"dp": 4}, conditions=exposed
    )
    assert {choice.layout.offload for choice in found} == {"none"}


def test_recomputing_half_of_the_layers_takes_half_the_time() -> None:
    times = [
        _timed(
            demand(LLAMA_7B, H100, 1, 1),
            Layout(),
            Recipe(recompute=kind, recompute_layers=count),  # type: ignore[arg-type]
            1,
        ).step.recompute
        for kind in ("full", "selective")
        for count in (None, 16)
    ]
    assert times[0] == pytest.approx(2 * times[1])
    assert times[2] == pytest.approx(2 * times[3])


@pytest.mark.parametrize(
    "held",
    [
        {"tp": 4}, {"dp": 2}, {"sharding": "zero3"}, {"sharding": "ddp"}, {"schedule": "zero-bubble"},
        {"offload": "optimizer"}, {"pp": 2, "virtual_stages": 4}, {"sequence_parallel": False},
    ],
    ids=str,
)  # fmt: skip
def test_a_search_holds_to_what_is_said(held: dict[str, object]) -> None:
    for choice in search(LLAMA_7B, H100, 8, 64, held=held):
        assert {name: getattr(choice.layout, name) for name in held} == held


def test_what_cannot_be_held_is_named() -> None:
    with pytest.raises(PlanError, match="with tp 3"):
        search(LLAMA_7B, H100, 8, 64, held={"tp": 3})


def test_states_are_offloaded_only_where_nothing_else_fits() -> None:
    small = replace(A100, memory_bytes=30 * 2**30)
    best = search(LLAMA_13B, small, 2, 2)[0]
    assert best.layout.offload != "none"
    assert search(LLAMA_13B, A100, 2, 2)[0].layout.offload == "none"


@given(
    count=st.sampled_from([1, 2, 4, 8, 12, 32]),
    per_device=st.integers(1, 6),
    layers=st.integers(2, 12),
    experts=st.sampled_from([1, 4]),
)
@settings(max_examples=15, deadline=None)
def test_layouts_obey_every_constraint(count: int, per_device: int, layers: int, experts: int) -> None:
    shape = ModelShape(
        layers=layers, width=512, ffn=1408, heads=8, kv_heads=4, vocab=32000, num_experts=experts
    )
    batch = count * per_device
    for choice in search(shape, A100, count, batch):
        layout = choice.layout
        assert layout.devices == count
        assert layout.dp * choice.recipe.accumulation * choice.micro_batch_sequences == batch
        assert layers >= layout.pp * layout.virtual_stages
        assert shape.heads % layout.tp == 0
        assert experts % layout.ep == 0
        assert layout.schedule != "interleaved" or choice.recipe.accumulation % layout.pp == 0
        assert layout.shards % layout.ep == 0
        assert choice.device_bytes <= A100.memory_bytes
        assert choice.step is not None
        assert 0 < choice.step.mfu < 1


def test_the_best_is_the_best_of_all_that_fit() -> None:
    """Stopping early loses nothing: every candidate is reckoned here."""
    wish = demand(LLAMA_13B, accelerator("a100-40g"), 16, 64)
    best = search_layouts(wish)[0]
    from scalecli.plan.layout import _reckoned

    fitting = [
        c.seconds
        for c in _candidates(wish)
        if _reckoned(wish, c).device_bytes <= wish.accelerator.memory_bytes
    ]
    assert best.seconds <= 1.03 * min(fitting)


def test_bubbles_of_the_schedules() -> None:
    """Narayanan et al. (2104.04473), section 2.2: (p - 1)/m, and 1/v of it when interleaved."""
    assert bubble(Layout(pp=8), 32) == 7 / 32
    assert bubble(Layout(pp=8, virtual_stages=4, schedule="interleaved"), 32) == 7 / 128
    assert bubble(Layout(pp=8, schedule="zero-bubble"), 32) == pytest.approx(7 / 96)
    assert [in_flight(Layout(pp=4), 16, stage) for stage in range(4)] == [4, 3, 2, 1]
    assert in_flight(Layout(pp=4, schedule="breadth-first"), 16, 3) == 16


def test_fewer_devices_keep_the_batch() -> None:
    """ElasWave's invariant: every sequence of the global batch is trained once, with the same weight."""
    wish = demand(LLAMA_13B, A100, 64, 192, recipe=Recipe(master_weights=True))
    choice = search_layouts(wish)[0]
    rows = list(on_fewer_devices(wish, choice))
    assert [row.devices for row in rows] == [56, 48, 32]
    for row in rows:
        assert row.data_parallel * row.sequences_per_rank + row.fuller_ranks == 192
        most = row.sequences_per_rank + (row.fuller_ranks > 0)
        assert row.micro_batch_sequences * row.accumulation == most
        cut = choice.layout.tp * choice.layout.pp * choice.layout.cp
        assert row.data_parallel * cut + row.idle_devices == row.devices
        assert 1 < row.slowdown < 2.5


def test_one_node_loses_devices_and_not_nodes() -> None:
    wish = demand(LLAMA_13B, A100, 8, 16)
    assert [row.devices for row in on_fewer_devices(wish, search_layouts(wish)[0])] == [7, 6, 4]
