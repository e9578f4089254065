"""Does the best learning rate move with width? The standard parametrisation against muP.

    python benchmarks/transfer.py [--widths 32,256] [--steps 120] [--seeds 6]

Depth, batch and steps are fixed; the grid of rates has a ratio of the root of two. The best rate is the vertex of a
parabola through the five rates about the lowest mean loss over the seeds. Every seed trains at every rate, so that
seeds are resampled together: the interval of the factor by which the best rate moves is over 2,000 such resamples.
Prints one line a width and rate as it goes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import numpy as np

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import Corpus, load_corpus
from scalecli.errors import NotEnoughSignal
from scalecli.probes.config import Evaluation, Parametrization, ProbeConfig
from scalecli.probes.family import widened
from scalecli.probes.learning_rate.design import at_rates
from scalecli.probes.learning_rate.estimate import rate_range
from scalecli.probes.schedule import Schedule
from scalecli.probes.train import train_together

DATA = "builtin:python"
CENTRES: dict[Parametrization, tuple[float, float]] = {"standard": (2**-6, 2**-8), "mup": (2**-6, 2**-6)}
"""Where the grids of the narrowest and the widest model are centred, from a first run with wide grids."""
RATES = 7
RESAMPLES = 2_000
LEVEL = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", default="32,256")
    parser.add_argument("--parametrizations", default="mup,standard")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=6)
    arguments = parser.parse_args()
    narrow, wide = (int(width) for width in arguments.widths.split(","))
    corpus = load_corpus(DATA)
    for parametrization in arguments.parametrizations.split(","):
        base = configuration(corpus, narrow, arguments.steps, parametrization)
        tables = [
            losses_at(replace(base, shape=widened(base.shape, width)), centre, arguments.seeds, corpus)
            for width, centre in zip((narrow, wide), CENTRES[parametrization], strict=True)
        ]
        report(parametrization, (narrow, wide), tables)


def configuration(corpus: Corpus, width: int, steps: int, parametrization: Parametrization) -> ProbeConfig:
    return ProbeConfig(
        shape=ModelShape(layers=2, width=width, ffn=3 * width, heads=1, kv_heads=1, vocab=corpus.vocab),
        data=DATA,
        data_sha256=corpus.sha256,
        sequence_length=64,
        batch_sequences=8,
        steps=steps,
        learning_rate=1e-3,
        schedule=Schedule(name="linear", warmup_steps=steps // 10),
        parametrization=parametrization,
        base_width=width,
        evaluation=Evaluation(sequences=128),
    )


Table = dict[float, list[float]]
"""Losses of every seed, in the same order, by rate; infinite where a run diverged."""


def losses_at(config: ProbeConfig, centre: float, seeds: int, corpus: Corpus) -> Table:
    rates = [centre * 2 ** ((index - RATES // 2) / 2) for index in range(RATES)]
    table: Table = {}
    for config_of_rate in (at_rates(config, [rate], seeds=seeds) for rate in rates):
        rows = {row["seed"]: row for row in train_together(config_of_rate, corpus=corpus, device="cpu")}
        ordered = [rows[seed] for seed in sorted(rows)]
        losses = [float(row["loss"]) if row["status"] == "ok" else math.inf for row in ordered]
        table[config_of_rate[0].learning_rate] = losses
        print(
            config.parametrization, config.shape.width, f"{config_of_rate[0].learning_rate:.3g}",
            [round(loss, 4) for loss in losses], flush=True,
        )  # fmt: skip
    return table


def best_rate(table: Table, seeds: np.ndarray) -> float:
    """The vertex over the chosen seeds; the best rate itself where it is the first or the last."""
    runs = [
        {
            "learning_rate": rate,
            "status": "ok" if math.isfinite(losses[seed]) else "diverged",
            "loss": losses[seed],
        }
        for rate, losses in table.items()
        for seed in seeds
    ]
    try:
        return rate_range(runs).best
    except NotEnoughSignal as error:
        return error.estimate


def report(parametrization: str, widths: tuple[int, int], tables: list[Table]) -> None:
    seeds = len(next(iter(tables[0].values())))
    draws = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    best = [best_rate(table, np.arange(seeds)) for table in tables]
    drawn = np.array([[best_rate(table, draw) for table in tables] for draw in draws])
    for width, rate, each in zip(widths, best, drawn.T, strict=True):
        low, high = np.quantile(each, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        print(f"{parametrization}, width {width}: best rate {rate:.4g} ({low:.4g} to {high:.4g})", flush=True)
    factors = drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(factors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    print(
        f"{parametrization}: the best rate moves by a factor {best[0] / best[1]:.2f} ({low:.2f} to {high:.2f}) "
        f"from width {widths[0]} to {widths[1]}",
        flush=True,
    )


if __name__ == "__main__":
    main()
