"""Training speed: against a minimal hand-written loop of the same model, stacked against one by one, and MFU.

    python benchmarks/probes.py [--device cpu|cuda] [--rounds 7] [--parts single,stacking,sweep,ladder,large]

Everything but the sweep runs in one process on one CPU thread, the variants in turn so that a busy machine slows all
alike. On a CPU the time is the process's own (other processes do not count), on a GPU it is elapsed time between
synchronisations. The sweep takes elapsed time, and so a machine that does nothing else. `ladder` and `large` are for a
GPU (64 runs of 1 to 30M parameters; 124M parameters), and take small models on a CPU. `benchmarks/gpu.py` runs these
and more with a time limit for each.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalecli.accounting.flops import training_flops_per_token
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import accelerators
from scalecli.data.corpus import Corpus, load_corpus
from scalecli.data.store import Store
from scalecli.probes.config import ProbeConfig
from scalecli.probes.device import cpu_settings, device_name
from scalecli.probes.engines.settings import EngineSettings
from scalecli.probes.family import member, proxy_shape
from scalecli.probes.ladder import Recipe, default_batch_tokens
from scalecli.probes.sweep import run_sweep
from scalecli.probes.throughput.child import random_corpus
from scalecli.probes.train import train
from scalecli.probes.train.acceleration import Acceleration
from scalecli.probes.train.trainer import Trainer
from scalecli.probes.units import plan_units

ROUND_SECONDS = 0.25
WARM_UP_STEPS = 5
"""More than are taken before a step is recorded."""
MATMUL = {"cpu": 1024, "cuda": 8192}
LADDER = {"cpu": (10e3, 30e3), "cuda": (1e6, 3e6, 10e6, 30e6)}
LARGE = {
    "cpu": ModelShape(layers=2, width=64, ffn=256, heads=2, kv_heads=2, vocab=1024, tied=True),
    "cuda": ModelShape(layers=12, width=768, ffn=2048, heads=12, kv_heads=12, vocab=50_304, tied=True),
}
LARGE_SEQUENCES = {"cpu": 2, "cuda": 32}


class MinimalBlock(nn.Module):
    """The block as one writes it by hand for one model."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.RMSNorm(shape.width)
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.feed_forward_norm = nn.RMSNorm(shape.width)
        self.up = nn.Linear(shape.width, 2 * shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        batch, length, width = x.shape
        query, key, value = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1).unbind(2)
        query, key = (self.rotate(part, rotation).transpose(1, 2) for part in (query, key))
        mixed = F.scaled_dot_product_attention(query, key, value.transpose(1, 2), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.up(self.feed_forward_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    @staticmethod
    def rotate(x: Tensor, rotation: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * rotation).flatten(-2).type_as(x)


class MinimalDecoder(nn.Module):
    rotation: Tensor

    def __init__(self, shape: ModelShape, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(MinimalBlock(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocab, bias=False)
        if shape.tied:
            self.head.weight = self.embedding.weight
        frequencies = 10_000.0 ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        angles = torch.outer(torch.arange(length), frequencies)
        self.register_buffer("rotation", torch.polar(torch.ones_like(angles), angles)[:, None])

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.rotation)
        return self.head(self.norm(x))


def minimal_loop(config: ProbeConfig, device: torch.device) -> Callable[[], object]:
    """One training step: forward, backward, clip, fused AdamW, on a batch that lies ready."""
    model = MinimalDecoder(config.shape, config.sequence_length).to(device)
    assert sum(parameter.numel() for parameter in model.parameters()) == config.shape.params
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
    batch = torch.randint(
        0, config.shape.vocab, (config.batch_sequences, config.sequence_length + 1), device=device
    )

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()

    return step


def our_loop(
    configs: list[ProbeConfig], device: torch.device, how: Acceleration | None = None
) -> Callable[[], object]:
    """As a sweep trains these runs on this device, unless something else is said."""
    how = how or Acceleration.of(configs, device, 1)
    trainer = Trainer(configs, random_corpus(configs[0]), device=device, acceleration=how)
    return lambda: trainer.advance(1.0)


def one_by_one(configs: list[ProbeConfig], device: torch.device) -> Callable[[], object]:
    steps = [our_loop([config], device) for config in configs]
    return lambda: [step() for step in steps]


def seconds_per_step(
    variants: dict[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Seconds of a step for each variant, one figure a round, in turn."""
    for step in variants.values():
        seconds_of(step, WARM_UP_STEPS, device)
    steps = {
        name: max(1, round(ROUND_SECONDS / seconds_of(step, 2, device))) for name, step in variants.items()
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, step in variants.items():
            times[name].append(seconds_of(step, steps[name], device))
    return times


def seconds_of(step: Callable[[], object], count: int, device: torch.device) -> float:
    """Seconds of one of so many steps."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize(device)
    start = clock()
    for _ in range(count):
        step()
    if on_gpu:
        torch.cuda.synchronize(device)
    return (clock() - start) / count


def ratio(slow: list[float], fast: list[float]) -> str:
    """Median over rounds of the ratio within a round, with its range."""
    ratios = sorted(a / b for a, b in zip(slow, fast, strict=True))
    return f"{median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"


def configuration(shape: ModelShape, sequences: int, device: torch.device) -> ProbeConfig:
    return ProbeConfig(
        shape=shape,
        data="random",
        data_sha256="0" * 64,
        sequence_length=128 if device.type == "cpu" else 1024,
        batch_sequences=sequences,
        steps=100,
        learning_rate=1e-3,
        dtype="float32" if device.type == "cpu" else "bfloat16",
    )


def matrix_product(device: torch.device, rounds: int) -> float:
    """What a large product reaches [FLOP/s]."""
    size = MATMUL[device.type]
    factor = torch.randn(size, size, device=device, dtype=torch.bfloat16 if device.type == "cuda" else None)
    seconds = seconds_per_step({"product": lambda: factor @ factor}, device, rounds)["product"]
    return 2 * size**3 / median(seconds)


def against_minimal(device: torch.device, rounds: int) -> None:
    limit = matrix_product(device, rounds)
    print(f"large matrix product: {limit / 1e9:,.1f} GFLOP/s")
    print("\nparams  batch tokens  tokens/s  against the minimal loop  MFU")
    widths = (16, 32, 64, 128) if device.type == "cpu" else (256, 512, 768)
    for width, sequences in itertools.product(widths, (4, 16)):
        config = configuration(member(width, 256), sequences, device)
        variants = {"ours": our_loop([config], device), "minimal": minimal_loop(config, device)}
        times = seconds_per_step(variants, device, rounds)
        speed = config.batch_tokens / median(times["ours"])
        mfu = speed * training_flops_per_token(config.shape, config.sequence_length) / limit
        against = ratio(times["minimal"], times["ours"])
        print(f"{config.shape.params:>7} {config.batch_tokens:>8} {speed:>13,.0f}  {against:<24} {mfu:.1%}")


def stacking(device: torch.device, rounds: int) -> None:
    print("\neight runs: params  batch tokens  tokens/s of all  stacked against one by one")
    cpu, gpu = (
        ((28, 2), (32, 1), (32, 4), (32, 16), (48, 2)),
        ((64, 1), (128, 1), (128, 4), (256, 4), (512, 4)),
    )
    for width, sequences in cpu if device.type == "cpu" else gpu:
        config = configuration(member(width, 256), sequences, device)
        runs = eight(config)
        variants = {"stacked": our_loop(runs, device), "separate": one_by_one(runs, device)}
        times = seconds_per_step(variants, device, rounds)
        speed = 8 * config.batch_tokens / median(times["stacked"])
        gain = ratio(times["separate"], times["stacked"])
        print(f"{config.shape.params:>18} {config.batch_tokens:>8} {speed:>16,.0f}        {gain}")


def eight(config: ProbeConfig) -> list[ProbeConfig]:
    """Runs that differ in seed and rate."""
    return [replace(config, seed=seed, learning_rate=1e-3 * (1 + seed)) for seed in range(8)]


def sweep_of_eight(device: torch.device) -> None:
    """Eight runs of 33k parameters and twenty tokens for each, in the batches of the default grid: as users run them,
    processes and all, against the same runs trained one after the other in one process.
    """
    recipe = Recipe().on(device.type)
    corpus = load_corpus("builtin:python")
    configs = eight(usual_run(member(28, corpus.vocab), recipe, corpus))
    engine = EngineSettings(device=device.type).engine(configs)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "runs.db") as store:
        start = time.perf_counter()
        report = run_sweep(configs, store, engine)
        swept = time.perf_counter() - start
    start = time.perf_counter()
    for config in configs:
        list(train(config, corpus=corpus, device=device.type))
    alone = time.perf_counter() - start
    print(
        f"\nsweep of {configs[0].shape.params:,} parameters: {report.finished} runs in {swept:.1f} s with "
        f"{engine.capacity().slots} slots, {alone:.1f} s one after the other: {alone / swept:.2f} times as fast"
    )


def usual_run(shape: ModelShape, recipe: Recipe, corpus: Corpus) -> ProbeConfig:
    """Twenty tokens a parameter in the batches of the default grid."""
    tokens = 20 * shape.params
    return recipe.config(
        shape,
        corpus,
        "builtin:python",
        tokens=tokens,
        batch_tokens=default_batch_tokens(tokens),
        learning_rate=3e-3,
    )


def ladder_of_64(device: torch.device, rounds: int) -> None:
    """Sixteen runs (four rates, four seeds) of twenty tokens a parameter at each of four sizes.

    They would take hours: steps are timed, alone and in the stacks of a sweep, and multiplied by their number.
    """
    recipe = Recipe().on(device.type)
    corpus = load_corpus("builtin:python")
    print(
        "\nladder: params  batch tokens  together  seconds of a run: minimal loop    alone  in a sweep",
        flush=True,
    )
    totals = {"minimal": 0.0, "alone": 0.0, "sweep": 0.0}
    for params in LADDER[device.type]:
        first = usual_run(proxy_shape(params, vocab=corpus.vocab), recipe, corpus)
        runs = [
            replace(first, learning_rate=rate, seed=seed)
            for rate, seed in itertools.product((1e-3, 2e-3, 4e-3, 8e-3), range(4))
        ]
        unit = max(plan_units(runs, device_type=device.type), key=len)
        variants = {
            "minimal": minimal_loop(first, device),
            "alone": our_loop([first], device),
            "sweep": our_loop(list(unit), device),
        }
        times = seconds_per_step(variants, device, rounds)
        seconds = {
            name: first.steps * median(each) / (len(unit) if name == "sweep" else 1)
            for name, each in times.items()
        }
        for name in totals:
            totals[name] += len(runs) * seconds[name]
        print(
            f"{first.shape.params:>14,} {first.batch_tokens:>13,} {len(unit):>9} {seconds['minimal']:>31,.1f} "
            f"{seconds['alone']:>8,.1f} {seconds['sweep']:>11,.1f}",
            flush=True,
        )
    gains = (totals[name] / totals["sweep"] for name in ("minimal", "alone"))
    print("all runs: {:.2f} times as fast as in minimal loops, {:.2f} times as fast as alone".format(*gains))


def large_model(device: torch.device, rounds: int) -> None:
    """A large model: share of what a large product reaches, and of the device's published peak."""
    limit = matrix_product(device, rounds)
    peaks = [
        each.peak_flops["bf16"]
        for name, each in accelerators().items()
        if name.split("-")[0] in device_name(device).lower() and "bf16" in each.peak_flops
    ]
    config = configuration(LARGE[device.type], LARGE_SEQUENCES[device.type], device)
    flops = config.batch_tokens * training_flops_per_token(config.shape, config.sequence_length)
    print(f"\nlarge matrix product: {limit / 1e12:,.1f} TFLOP/s")
    print(f"{config.shape.params:,} parameters: tokens/s  of a large product  of the published peak")
    makers: dict[str, Callable[[], Callable[[], object]]] = {
        "minimal": lambda: minimal_loop(config, device),
        "ours": lambda: our_loop([config], device, Acceleration()),
        "ours, compiled": lambda: our_loop([config], device, Acceleration(compiled=True)),
    }
    for name, made in makers.items():
        start = time.perf_counter()
        times = seconds_per_step({name: made()}, device, rounds)[name]
        speed = flops / median(times)
        peak = f"{speed / peaks[0]:.1%}" if peaks else "not in the catalogue"
        print(
            f"{name:<18} {config.batch_tokens / median(times):>14,.0f}  {speed / limit:>10.1%}  {peak:>20}   "
            f"({time.perf_counter() - start:.0f} s in all)",
            flush=True,
        )


PARTS: dict[str, Callable[[torch.device, int], None]] = {
    "single": against_minimal,
    "stacking": stacking,
    "sweep": lambda device, _: sweep_of_eight(device),
    "ladder": ladder_of_64,
    "large": large_model,
}
USUAL = {"cpu": "single,stacking,sweep", "cuda": ",".join(PARTS)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", help=f"Some of {','.join(PARTS)}.")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print(f"{device_name(device)}, torch {torch.__version__}, one CPU thread", flush=True)
    with cpu_settings(1):
        for part in (arguments.parts or USUAL[device.type]).split(","):
            PARTS[part](device, arguments.rounds)


if __name__ == "__main__":
    main()
