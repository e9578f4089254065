"""Does the best learning rate move with width? The standard parametrisation against muP.

    python benchmarks/transfer.py [--widths 32,256] [--steps 80] [--seeds 3]

Depth, batch and steps are fixed; the grid of rates has a ratio of the root of two. The best rate is the vertex of a
parabola through the five rates about the lowest mean loss over the seeds. Prints one line a width and rate as it goes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import load_corpus
from scalecli.errors import NotEnoughSignal
from scalecli.probes.columns import Row
from scalecli.probes.config import Evaluation, Parametrization, ProbeConfig
from scalecli.probes.family import widened
from scalecli.probes.learning_rate.design import design
from scalecli.probes.learning_rate.estimate import rate_range
from scalecli.probes.schedule import Schedule
from scalecli.probes.train import train_together

DATA = "builtin:python"
RATES: dict[Parametrization, tuple[float, float]] = {"standard": (2**-10, 2**-5), "mup": (2**-7.5, 2**-4.5)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", default="32,256")
    parser.add_argument("--parametrizations", default="standard,mup")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    widths = [int(width) for width in arguments.widths.split(",")]
    corpus = load_corpus(DATA)
    for parametrization in arguments.parametrizations.split(","):
        low, high = RATES[parametrization]
        base = ProbeConfig(
            shape=ModelShape(
                layers=2, width=widths[0], ffn=3 * widths[0], heads=1, kv_heads=1, vocab=corpus.vocab
            ),
            data=DATA,
            data_sha256=corpus.sha256,
            sequence_length=64,
            batch_sequences=8,
            steps=arguments.steps,
            learning_rate=1e-3,
            schedule=Schedule(name="linear", warmup_steps=arguments.steps // 10),
            parametrization=parametrization,
            base_width=widths[0],
            evaluation=Evaluation(sequences=128),
        )
        best = []
        for width in widths:
            runs: list[Row] = []
            wide = replace(base, shape=widened(base.shape, width))
            configs = design(wide, low=low, high=high, per_octave=2, seeds=arguments.seeds)
            for rate in sorted({config.learning_rate for config in configs}):
                seeds = [config for config in configs if config.learning_rate == rate]
                rows = list(train_together(seeds, corpus=corpus, device="cpu"))
                runs += rows
                print(
                    parametrization,
                    width,
                    f"{rate:.3g}",
                    [row["loss"] and round(float(row["loss"]), 4) for row in rows],
                    flush=True,
                )
            try:
                best.append(rate_range(runs).best)
                print(f"{parametrization}, width {width}: best rate {best[-1]:.3g}", flush=True)
            except NotEnoughSignal as error:
                best.append(math.nan)
                print(f"{parametrization}, width {width}: {error.message}", flush=True)
        print(
            f"{parametrization}: the best rate moves by a factor {best[0] / best[-1]:.2f} over {widths}",
            flush=True,
        )


if __name__ == "__main__":
    main()
