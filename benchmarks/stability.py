"""How far the held-out loss rises at rates that train well and at rates that do not.

    python benchmarks/stability.py

30k parameters on the Python library, 200k tokens, two batches, five rates and three seeds: the rise above the lowest
reading so far beside the final loss. What separates the two groups is the threshold `RISE` of `probe stability`.
"""

from __future__ import annotations

from collections import defaultdict

from scalecli.data.corpus import load_corpus
from scalecli.probes.family import proxy_shape
from scalecli.probes.ladder import Recipe
from scalecli.probes.stability.estimate import Trained, trained
from scalecli.probes.stability.run import StabilityProbe, pairs, run

PARAMS, TOKENS, SEQUENCE = 30e3, 2e5, 128
BATCHES, RATES, SEEDS = (4, 16), (3e-3, 1e-2, 3e-2, 1e-1, 3e-1), 3


def main() -> None:
    corpus = load_corpus("builtin:python")
    found: dict[tuple[int, float], list[Trained]] = defaultdict(list)
    for seed in range(SEEDS):
        config = Recipe(sequence_length=SEQUENCE, schedule="constant").config(
            proxy_shape(PARAMS, vocab=corpus.vocab), corpus, "builtin:python",
            tokens=TOKENS, batch_tokens=BATCHES[0] * SEQUENCE, learning_rate=RATES[0], seed=seed,
        )  # fmt: skip
        rows = run(pairs(config, StabilityProbe(batches=BATCHES, rates=RATES)), corpus=corpus, device="cpu")
        for each in trained(list(rows)):
            found[each.batch_tokens, each.learning_rate].append(each)
    print("batch   rate   rises over seeds [nats]   loss   update size   correlation")
    for (batch, rate), runs in found.items():
        rises = " ".join(f"{each.rise:.3f}" for each in runs)
        losses = " ".join("none" if each.loss is None else f"{each.loss:.2f}" for each in runs)
        size = sum(each.update_size for each in runs) / len(runs)
        correlation = sum(each.correlation for each in runs) / len(runs)
        print(f"{batch:>5} {rate:>6g}   {rises}   {losses}   {size:.2f}   {correlation:.2f}")


if __name__ == "__main__":
    main()
