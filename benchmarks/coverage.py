"""How often 90 % intervals contain the truth, over a thousand worlds, half of them outside the fitted family.

A world is a loss surface, a ladder of proxy runs on it, and their noise: an offset shared by the runs of one
model size, a heavy-tailed error (Student t with 4 degrees of freedom) of each run, both larger at small
scale. The law fitted is always Chinchilla's. Half of the worlds are Chinchilla surfaces: there parameters
have a truth and are scored too. In the others the exponents shrink slowly with scale, or a term couples size
and data, or the surface is Kaplan's: there only losses are scored.

The loss is scored where it matters, at 10 and at 100 times the compute of the largest run, with 20 tokens per
parameter, against a new measurement there, noise included.

    python benchmarks/coverage.py --worlds 1000 --markdown
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.law import Array, names
from scalecli.fitters.laws.chinchilla import Chinchilla

LEVEL = 0.9
FACTORS = (10.0, 100.0)
"""Times the compute of the largest run."""

TOKENS_PER_PARAM = 20.0
MIDDLE = (1e8, 2e9)
"""Parameters and tokens at which the terms of a surface are of ordinary size."""

Surface = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class World:
    """A surface, the runs on it (rows,), and how large noise is there."""

    family: str
    truth: Chinchilla | None
    surface: Surface
    params: Array
    tokens: Array
    group: Array
    offset: float
    error: float

    def measure(self, params: Array, tokens: Array, group: Array, random: np.random.Generator) -> Array:
        """Losses of runs, (rows,): noise shrinks with the 0.1th power of compute, as seeds' spread does."""
        shrink = (params * tokens / np.prod(MIDDLE)) ** -0.1
        labels, row = np.unique(group, return_inverse=True)
        shared = self.offset * random.standard_normal(len(labels))[row]
        own = self.error * random.standard_t(4, len(params)) / np.sqrt(2)
        return np.asarray(self.surface(params, tokens) * np.exp(shrink * (shared + own)))


def chinchilla(random: np.random.Generator) -> Chinchilla:
    """A surface whose terms at the middle of the runs are like those of published ones."""
    alpha, beta = random.uniform(0.25, 0.5, 2)
    size, data = random.uniform(0.3, 0.9, 2)
    return Chinchilla(
        E=random.uniform(1.4, 2.4),
        A=size * MIDDLE[0] ** alpha,
        B=data * MIDDLE[1] ** beta,
        alpha=alpha,
        beta=beta,
    )


def additive(law: Chinchilla, random: np.random.Generator) -> Surface:
    """The law itself."""
    return lambda params, tokens: law.predict({"params": params, "tokens": tokens})


def bending(law: Chinchilla, random: np.random.Generator) -> Surface:
    """Both exponents lose 2 to 8 % of themselves with every decade."""
    loss = random.uniform(0.02, 0.08)

    def surface(params: Array, tokens: Array) -> Array:
        up, along = np.log10(params / MIDDLE[0]), np.log10(tokens / MIDDLE[1])
        size = law.A * MIDDLE[0] ** -law.alpha * 10 ** (-law.alpha * (up - loss * up * np.abs(up) / 2))
        data = law.B * MIDDLE[1] ** -law.beta * 10 ** (-law.beta * (along - loss * along * np.abs(along) / 2))
        return np.asarray(law.E + size + data)

    return surface


def coupled(law: Chinchilla, random: np.random.Generator) -> Surface:
    """A third term falls with the product of size and data; a tenth to a third of the others."""
    share, exponent = random.uniform(0.1, 0.35), random.uniform(0.1, 0.25)

    def surface(params: Array, tokens: Array) -> Array:
        product = (params / MIDDLE[0] * tokens / MIDDLE[1]) ** -exponent
        x = {"params": params, "tokens": tokens}
        return np.asarray(
            law.predict(x)
            + share * (law.predict({"params": MIDDLE[0], "tokens": MIDDLE[1]}) - law.E) * product
        )

    return surface


def kaplan(law: Chinchilla, random: np.random.Generator) -> Surface:
    """E + ((Nc/N)^(alpha/beta) + Dc/D)^beta: the shortage of either one hides the other's."""

    def surface(params: Array, tokens: Array) -> Array:
        size = (law.A * params**-law.alpha) ** (1 / law.beta)
        data = (law.B * tokens**-law.beta) ** (1 / law.beta)
        return np.asarray(law.E + (size + data) ** law.beta)

    return surface


OUTSIDE = {"bending": bending, "coupled": coupled, "kaplan": kaplan}


def worlds(count: int, seed: int) -> Iterator[tuple[World, np.random.Generator]]:
    """Chinchilla and the others by turns."""
    families = [name for other in OUTSIDE for name in ("chinchilla", other)]
    for i, stream in enumerate(np.random.SeedSequence(seed).spawn(count)):
        random = np.random.default_rng(stream)
        family = families[i % len(families)]
        law = chinchilla(random)
        inside = family == "chinchilla"
        params, tokens, group = ladder(random)
        yield (
            World(
                family,
                law if inside else None,
                additive(law, random) if inside else OUTSIDE[family](law, random),
                params,
                tokens,
                group,
                offset=random.uniform(0.001, 0.006),
                error=random.uniform(0.001, 0.006),
            ),
            random,
        )


def ladder(random: np.random.Generator) -> tuple[Array, Array, Array]:
    """20 to 30 sizes over two decades, each trained on 3 to 8 amounts of data."""
    sizes = np.geomspace(1e7, 1e9, int(random.integers(20, 31))) * random.uniform(0.9, 1.1)
    counts = random.integers(3, 9, len(sizes))
    group = np.repeat(np.arange(len(sizes)), counts)
    ratios = np.exp(random.uniform(np.log(2.0), np.log(200.0), len(group)))
    return sizes[group], sizes[group] * ratios, group.astype(float)


def fit_world(world: World, random: np.random.Generator, *, grouped: bool, draws: int) -> Fit:
    x = {"params": world.params, "tokens": world.tokens}
    loss = world.measure(world.params, world.tokens, world.group, random)
    options = FitOptions(draws=draws, interval=LEVEL, diagnose=False)
    return fit_law(Chinchilla, x, loss, groups=world.group if grouped else None, options=options)


def score(world: World, fit: Fit, random: np.random.Generator) -> dict[str, float]:
    """What was asked -> 1 where its interval had the answer, and the widths of intervals [log units]."""
    found = {}
    if world.truth is not None:
        for name in names(Chinchilla):
            interval = fit.query(lambda law, name=name: getattr(law, name))  # type: ignore[misc]
            assert interval.low is not None
            assert interval.high is not None
            found[name] = float(interval.low <= getattr(world.truth, name) <= interval.high)
    for factor in FACTORS:
        flops = factor * float(np.max(6 * world.params * world.tokens))
        params = np.array([np.sqrt(flops / (6 * TOKENS_PER_PARAM))])
        tokens = TOKENS_PER_PARAM * params
        measured = world.measure(params, tokens, np.zeros(1), random)
        prediction = fit.predict({"params": params, "tokens": tokens})
        found[f"loss x{factor:g}"] = float(prediction.low[0] <= measured[0] <= prediction.high[0])
        found[f"width x{factor:g}"] = float(np.log(prediction.high[0] / prediction.low[0]))
    return found


def markdown(scores: list[dict[str, float]]) -> str:
    """Coverage by family and question; the last columns are median widths of the interval in log units."""
    asked = list(dict.fromkeys(key for one in scores for key in one if key != "family"))
    lines = ["| worlds | count | " + " | ".join(asked) + " |", "|---" * (len(asked) + 2) + "|"]
    families = ["chinchilla", *OUTSIDE]
    for title, members in [(name, [name]) for name in families] + [
        ("outside the family", list(OUTSIDE)),
        ("all", families),
    ]:
        chosen = [one for one in scores if one["family"] in members]
        cells = [_cell(key, [one[key] for one in chosen if key in one]) for key in asked]
        lines.append(f"| {title} | {len(chosen)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(key: str, values: list[float]) -> str:
    if not values:
        return "–"
    return f"{np.median(values):.3f}" if key.startswith("width") else f"{100 * np.mean(values):.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows-alone", action="store_true", help="ignore the groups, as most tools do")
    parser.add_argument("--out", type=Path, default=None, help="one JSON line a world")
    asked = parser.parse_args()
    began, scores = time.process_time(), []
    for world, random in worlds(asked.worlds, asked.seed):
        fit = fit_world(world, random, grouped=not asked.rows_alone, draws=asked.draws)
        scores.append({"family": world.family, **score(world, fit, random)})
        if asked.out is not None:
            with asked.out.open("a") as file:
                file.write(json.dumps(scores[-1]) + "\n")
    print(markdown(scores))
    print(f"\n{asked.worlds} worlds, {asked.draws} draws each, {time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    main()
