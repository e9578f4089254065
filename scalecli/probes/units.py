"""Which runs train together: branches of one trunk, copies in one stack. Pure arithmetic on configurations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

from scalecli.accounting.shape import ModelShape
from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.schedule import WITH_TAIL

Unit = tuple[ProbeConfig, ...]
"""Runs that one process trains as one: they end, and are lost, together."""

STACK_TOKENS = {"cpu": 2048, "cuda": 32_768}
"""Batch tokens of all copies up to which stacking pays: measured (docs/benchmarks.md); on an H200 a stack of so many is
still 1.6 times as fast as its runs one by one at 6.5M parameters."""
STACK_PARAMS = {"cpu": 100_000, "cuda": 30_000_000}
"""Size up to which it pays: above it arithmetic, not launching, takes the time."""
STACK_COPIES = 8


def stack_key(config: ProbeConfig) -> ProbeConfig:
    """Runs with equal keys can train side by side: only seed, learning rate and weight decay differ."""
    optimizer = replace(config.optimizer, weight_decay=0.0)
    return replace(config, seed=0, learning_rate=1.0, optimizer=optimizer, data="", tokenizer="")


def lengths(configs: Sequence[ProbeConfig]) -> list[list[ProbeConfig]]:
    """The runs by length, shortest first, each length with the same families in the same order.

    Raises:
        ProbeError: the runs are not a grid of stackable families times lengths.
    """
    by_steps: dict[int, list[ProbeConfig]] = defaultdict(list)
    for config in sorted(configs, key=lambda config: (config.steps, config.family)):
        by_steps[config.steps].append(config)
    grid = list(by_steps.values())
    families = [config.family for config in grid[0]]
    alike = {replace(stack_key(config), steps=1) for config in configs}
    if len(alike) > 1 or any([config.family for config in row] != families for row in grid):
        raise ProbeError("runs that train together must share all but seed, learning rate, decay and length")
    return grid


def plan_units(
    configs: Iterable[ProbeConfig], *, device_type: str, slots: int = 1, devices: int = 1
) -> list[Unit]:
    """Every run in exactly one unit, the unit with the most work first (it would otherwise end the sweep alone).

    Stacks are halved while there are fewer units than slots; what needs several `devices` is not stacked.
    """
    unique = {config.run_id: config for config in configs}
    trunks: dict[str, list[ProbeConfig]] = defaultdict(list)
    for config in unique.values():
        shares = config.schedule.name in (*WITH_TAIL, "constant")
        trunks[config.family if shares else config.run_id].append(config)
    stacks: dict[tuple[ProbeConfig, ...], list[list[ProbeConfig]]] = defaultdict(list)
    for trunk in trunks.values():
        trunk.sort(key=lambda config: config.steps)
        stacks[tuple(stack_key(config) for config in trunk)].append(trunk)
    parts = [
        part
        for alike in stacks.values()
        for part in _parts(alike, _copies(alike[0][0], device_type) if devices == 1 else 1)
    ]
    while len(parts) < slots and (largest := max(parts, key=len, default=[])) and len(largest) > 1:
        parts.remove(largest)
        parts += _parts(largest, -(-len(largest) // 2))
    return sorted((tuple(chain.from_iterable(part)) for part in parts), key=unit_flops, reverse=True)


def unit_steps(unit: Unit) -> list[tuple[ProbeConfig, int]]:
    """Steps the unit takes for each of its runs; what branches share is counted once, with the shortest."""
    taken = []
    shared: dict[str, int] = {}
    for config in sorted(unit, key=lambda config: config.steps):
        start = shared.get(config.family, 0)
        taken.append((config, config.steps - start))
        shared[config.family] = config.schedule.branch_step(config.steps)
    return taken


def unit_flops(unit: Unit) -> float:
    """Training FLOPs of the unit: exact count, shared trunks once [FLOP]."""
    return sum(config.flops_exact * steps / config.steps for config, steps in unit_steps(unit))


def _copies(config: ProbeConfig, device_type: str) -> int:
    """How many runs like this one to train side by side: only our own decoder stacks."""
    if not isinstance(config.shape, ModelShape) or config.shape.params >= STACK_PARAMS[device_type]:
        return 1
    return max(1, min(STACK_COPIES, STACK_TOKENS[device_type] // config.batch_tokens))


def _parts(trunks: list[list[ProbeConfig]], size: int) -> Iterable[list[list[ProbeConfig]]]:
    """Nearly equal parts of at most `size`."""
    count = -(-len(trunks) // size)
    return (trunks[part::count] for part in range(count))
