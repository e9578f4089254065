"""Seeded synthetic landscapes with a known optimum: loss over params, tokens, batch and learning rate.

Half of them are members of the fitted family. The others are not: other basins (linear-exponential in rotated
axes, pseudo-Huber, or built from steps, gradient noise and a stability wall), widths that change with scale,
optimum laws that bend in log-log, and noise with heavy tails. `DENSE` are settings as a public dense grid has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Surface = Callable[[Array, Array, Array, Array], Array]
"""Log params, log tokens, log batch, log rate -> nats above the setting's optimum, up to a constant a setting."""

REFERENCE = np.log(np.array([3e8, 1e10]))
"""Log params and log tokens where the scales below are meant."""

KINDS = ("family", "linex", "pseudo-huber", "mechanistic")

DENSE = [
    (6e7, 2e9), (6e7, 8e9), (1.2e8, 4e9), (1.2e8, 2e10), (2.15e8, 4e9), (2.15e8, 1.1e10), (2.15e8, 1e11),
    (2.7e8, 5e9), (2.7e8, 8e10), (4.3e8, 8e9), (4.3e8, 4e10), (4.3e8, 5e10), (5.4e8, 1e10), (5.4e8, 2.8e10),
    (5.4e8, 5e10), (1.07e9, 2e10), (1.07e9, 5.7e10), (1.07e9, 1e11),
]  # fmt: skip
"""Params and tokens, 10 to 500 tokens a parameter; with steps of root two in both axes about 1,900 runs."""


@dataclass(frozen=True)
class World:
    kind: str
    surface: Surface
    noise: float
    tail: float
    wall: float
    corner: bool
    seed: int
    scatter: float = 0.0
    """Standard deviation of a setting's optimum about the laws, in logs: what shapes and seeds do."""

    def tuned_loss(self, params: Array, tokens: Array) -> Array:
        return 1.75 + 420.0 * params**-0.34 + 1200.0 * tokens**-0.34

    def optimum(self, params: float, tokens: float) -> tuple[float, float, float]:
        """Log batch, log rate and basin height at the optimum, by pattern search on the true surface."""
        x, y = np.log(params) - REFERENCE[0], np.log(tokens) - REFERENCE[1]
        centre, width = np.array([13.0 + 0.5 * y, -6.0 - 0.4 * x]), 6.0
        steps = np.linspace(-1.0, 1.0, 41)
        for _ in range(14):
            b, r = (
                axis.ravel() for axis in np.meshgrid(centre[0] + width * steps, centre[1] + width * steps)
            )
            height = self.height(params, tokens, b, r)
            lowest = int(np.argmin(height))
            centre, width = np.array([b[lowest], r[lowest]]), width * 0.3
        return float(centre[0]), float(centre[1]), float(height[lowest])

    def excess(self, params: float, tokens: float, batch: Array, rate: Array) -> Array:
        """Nats above the optimum of this setting."""
        b, r = np.atleast_1d(np.log(batch)), np.atleast_1d(np.log(rate))
        return self.height(params, tokens, b, r) - self.optimum(params, tokens)[2]

    def height(self, params: float, tokens: float, b: Array, r: Array) -> Array:
        """The surface of one setting over log batch and log rate, (points,)."""
        off = self.scatter * np.random.default_rng([self.seed, int(params), int(tokens)]).standard_normal(2)
        n, t = np.full(b.size, np.log(params)), np.full(b.size, np.log(tokens))
        return self.surface(n, t, b - off[0], r - off[1])

    def runs(
        self, settings: list[tuple[float, float]], *, rate_step: float = 2**0.5, batch_step: float = 2.0
    ) -> tuple[dict[str, Array], Array]:
        """Finished runs on a lattice around each setting's optimum; diverged ones are missing, and a corner may be."""
        rng = np.random.default_rng([self.seed, 1])
        rows, losses = [], []
        for params, tokens in settings:
            b0, r0, base = self.optimum(params, tokens)
            off_b, off_r = rng.uniform(-0.5, 0.5, 2)
            b, r = (
                axis.ravel()
                for axis in np.meshgrid(
                    _lattice(b0 + off_b, 2.1, np.log(batch_step)),
                    _lattice(r0 + off_r, 1.75, np.log(rate_step)),
                )
            )
            kept = r - r0 < self.wall + 0.3 * (b - b0)
            if self.corner:
                kept &= ~((r - r0 > 0.7) & (b - b0 < -0.7))
            b, r = b[kept], r[kept]
            height = self.height(params, tokens, b, r) - base
            noise = self.noise * (1 + 3 * height) * rng.standard_t(self.tail, b.size)
            rows.append(np.stack([np.full(b.size, params), np.full(b.size, tokens), np.exp(b), np.exp(r)]))
            losses.append(self.tuned_loss(params, tokens) + height + noise)
        names = ("params", "tokens", "batch_tokens", "learning_rate")
        return dict(zip(names, np.concatenate(rows, axis=1), strict=True)), np.concatenate(losses)


def _lattice(centre: float, reach: float, step: float) -> Array:
    """Multiples of `step` (as grids of real sweeps are) within `reach` of the centre."""
    return step * np.arange(np.ceil((centre - reach) / step), np.floor((centre + reach) / step) + 1)


def make_world(seed: int, kind: str, scatter: float = 0.0) -> World:
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    make = {"family": _family, "linex": _linex, "pseudo-huber": _pseudo_huber, "mechanistic": _mechanistic}[
        kind
    ]
    return World(
        kind=kind,
        surface=make(rng),
        noise=float(np.exp(rng.uniform(np.log(5e-4), np.log(4e-3)))),
        tail=30.0 if kind == "family" else 4.0,
        wall=float(rng.uniform(1.0, 2.5)),
        corner=bool(rng.random() < 0.5),
        seed=seed,
        scatter=scatter,
    )


def _optimum_laws(rng: np.random.Generator, bend: float) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Log batch* and log rate* over log params and log tokens; `bend` is the scale of their second derivatives."""
    rate = [np.log(1.5e-3) + rng.normal(0, 0.4), rng.uniform(-0.8, -0.1), rng.uniform(-0.3, 0.35)]
    batch = [
        np.log(4e5) + rng.normal(0, 0.4),
        rng.choice([0.0, rng.uniform(-0.2, 0.4)]),
        rng.uniform(0.3, 0.7),
    ]
    curve = bend * rng.normal(0, 1, 4)

    def at(n: Array, t: Array) -> tuple[Array, Array]:
        x, y = n - REFERENCE[0], t - REFERENCE[1]
        best_batch = batch[0] + batch[1] * x + batch[2] * y + curve[0] * x**2 + curve[1] * y**2
        return best_batch, rate[0] + rate[1] * x + rate[2] * y + curve[2] * x**2 + curve[3] * y**2

    return at


def _curvature(rng: np.random.Generator) -> tuple[float, float, float]:
    """Second derivatives by rate, cross, batch [nats]."""
    rate = np.exp(rng.uniform(np.log(0.01), np.log(0.06)))
    batch = np.exp(rng.uniform(np.log(0.006), np.log(0.03)))
    return rate, -rng.uniform(0.0, 0.7) * np.sqrt(rate * batch), batch


def _family(rng: np.random.Generator) -> Surface:
    laws, (rate, cross, batch) = _optimum_laws(rng, 0.0), _curvature(rng)
    kappa, lean = np.exp(rng.uniform(np.log(0.05), np.log(0.5))), rng.uniform(-0.2, 1.5)

    def surface(n: Array, t: Array, b: Array, r: Array) -> Array:
        best_batch, best_rate = laws(n, t)
        u, v = r - best_rate, b - best_batch
        bowl = (rate * u**2 + 2 * cross * u * v + batch * v**2) / (2 * kappa)
        return kappa * np.log1p(bowl * np.exp(lean * np.tanh(u)))

    return surface


def _linex(rng: np.random.Generator) -> Surface:
    """Linear-exponential in axes rotated against rate and batch, narrowing or widening with scale."""
    laws, (rate, _, batch) = _optimum_laws(rng, 0.01), _curvature(rng)
    angle, lean = rng.uniform(0.0, 0.6), (rng.uniform(0.1, 0.9), rng.uniform(-0.4, 0.4))
    widen = rng.normal(0, 0.08, 2)

    def surface(n: Array, t: Array, b: Array, r: Array) -> Array:
        best_batch, best_rate = laws(n, t)
        u, v = r - best_rate, b - best_batch
        p, q = np.cos(angle) * u - np.sin(angle) * v, np.sin(angle) * u + np.cos(angle) * v
        scale = np.exp(widen[0] * (n - REFERENCE[0]) + widen[1] * (t - REFERENCE[1]))
        bowl = [
            h * (np.exp(g * z) - g * z - 1) / g**2
            for h, g, z in zip((rate, batch), lean, (p, q), strict=True)
        ]
        return scale * (bowl[0] + bowl[1])

    return surface


def _pseudo_huber(rng: np.random.Generator) -> Surface:
    """Quadratic, then linear; the side of high rates is compressed, so that it is steeper there."""
    laws, (rate, cross, batch) = _optimum_laws(rng, 0.01), _curvature(rng)
    turn, lean = np.exp(rng.uniform(np.log(0.02), np.log(0.2))), rng.uniform(0.0, 0.5)
    widen = rng.normal(0, 0.08, 2)

    def surface(n: Array, t: Array, b: Array, r: Array) -> Array:
        best_batch, best_rate = laws(n, t)
        u, v = r - best_rate, b - best_batch
        u = u + lean * (np.logaddexp(0, 2 * u) - np.log(2) - u) / 2
        scale = np.exp(widen[0] * (n - REFERENCE[0]) + widen[1] * (t - REFERENCE[1]))
        bowl = rate * u**2 + 2 * cross * u * v + batch * v**2
        return scale * turn * (np.sqrt(1 + bowl / turn) - 1)

    return surface


def _mechanistic(rng: np.random.Generator) -> Surface:
    """Too few useful steps, too much gradient noise, and a wall of instability; p-norms join them."""
    speed, p = rng.uniform(0.6, 0.9), rng.uniform(1.2, 2.0)
    need, heat = rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.9)
    edge = [np.log(6e-3) + rng.normal(0, 0.3), rng.uniform(-0.6, -0.2), rng.uniform(0.0, 0.2)]
    size = np.exp(rng.uniform(np.log(0.03), np.log(0.08)))
    small = rng.uniform(0.2, 0.5)

    def surface(n: Array, t: Array, b: Array, r: Array) -> Array:
        x, y = n - REFERENCE[0], t - REFERENCE[1]
        steps = 0.7 * y + REFERENCE[1] - b + speed * (r - np.log(1e-3)) + 0.3 * x
        progress = np.exp(-need * (steps - np.log(2e4)))
        noise = np.exp(heat * (r - np.log(1e-3)) - 0.5 * heat * (b - np.log(4e5)) + 0.1 * x - 0.3 * y)
        tiny = np.exp(-small * (b - np.log(4e5)) - 0.2 * y)
        wall = np.logaddexp(0, 3 * (r - edge[0] - edge[1] * x - edge[2] * (b - np.log(4e5)))) ** 2 / 9
        return size * ((progress**p + noise**p) ** (1 / p) + 0.5 * tiny + wall)

    return surface
