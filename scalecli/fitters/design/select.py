"""Choosing runs by how much they reduce the variance of an answer.

The covariance of a fit's draws is the inverse of its Fisher information (of the robust, clustered kind). What
a run at x would add to the information is known before it is trained: the gradient of the predicted loss
there, over the variance of its noise. Both enter through covariances over the draws, of the answer and of the
predictions at all candidates, so that any law and any answer will do and no matrix of a poorly determined
parameter is inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalecli.fitters.design.answer import Answer
from scalecli.fitters.design.candidates import Candidates
from scalecli.fitters.domain import SIZES
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import Array
from scalecli.fitters.problem import Mask

TAIL = 0.005
"""Draws beyond these quantiles are moved to them: a variance should not hang on the wildest draw."""

SHARED = 0.5
"""Of the variance of a run's noise, the part that all runs of its model size are taken to share (their shape and
tuning are the same), so that ten runs of one size never look like ten independent measurements."""

PASSES = 5
"""Rounds of exchanges; one or two are enough in nearly all cases."""


@dataclass(frozen=True)
class Information:
    """What the fit knows of an answer and of every candidate's log loss.

    `answer` is the variance of the log answer, `cross` (candidates,) its covariance with the candidates,
    `joint` (candidates, candidates) theirs with each other, what runs of one size share included; `noise` the
    variance of what a run shares with no other, (candidates,).
    """

    answer: float
    cross: Array
    joint: Array
    noise: Array

    def after(self, runs: list[int]) -> float:
        """The variance of the answer once these candidates (repeats allowed) are trained and fitted."""
        return float(self.answer - self.cross[runs] @ np.linalg.solve(self._measured(runs), self.cross[runs]))

    def gains(self, runs: list[int]) -> Array:
        """By how much each candidate, trained besides `runs`, would still reduce the variance, (candidates,)."""
        solved = np.linalg.solve(self._measured(runs), np.column_stack([self.joint[runs], self.cross[runs]]))
        cross = self.cross - self.joint[:, runs] @ solved[:, -1]
        own = np.diag(self.joint) - np.einsum("ij,ji->i", self.joint[:, runs], solved[:, :-1])
        gained: Array = cross**2 / (np.maximum(own, 0.0) + self.noise)
        return gained

    def _measured(self, runs: list[int]) -> Array:
        """Covariance of what these runs will measure, (runs, runs)."""
        measured: Array = self.joint[np.ix_(runs, runs)] + np.diag(self.noise[runs])
        return measured


def information(fit: Fit, answer: Answer, candidates: Candidates) -> Information:
    """Covariances over the draws that have an answer."""
    with np.errstate(all="ignore"):
        spread = np.log(fit.bundle().predict(candidates.columns))[answer.kept]
    everything = np.column_stack([answer.log_draws, spread])
    usable = everything[np.isfinite(everything).all(1)]
    usable = np.clip(usable, *np.quantile(usable, [TAIL, 1 - TAIL], axis=0))
    covariance = np.cov(usable, rowvar=False)
    noise = float(np.var(np.clip(fit.band.noise, *np.quantile(fit.band.noise, [TAIL, 1 - TAIL]))))
    noise = max(noise, np.finfo(float).eps * float(np.trace(covariance)))
    factor = fit.band.noise_factor(np.log(candidates.flops))
    joint = covariance[1:, 1:] + SHARED * noise * _same_size(candidates) * np.outer(factor, factor)
    return Information(float(covariance[0, 0]), covariance[0, 1:], joint, (1 - SHARED) * noise * factor**2)


def _same_size(candidates: Candidates) -> Mask:
    """Which candidates have the same model size, (candidates, candidates)."""
    size = next((candidates.columns[name] for name in SIZES if name in candidates.columns), None)
    assert size is not None, "what has a cost has a size"
    return np.asarray(size[:, None] == size)


def choose_runs(known: Information, flops: Array, budget: float, most: int) -> list[int]:
    """At most `most` candidates within the budget, best for the answer: greedy, then by exchange.

    Greedy by gain and greedy by gain for each FLOP are both tried, because either alone can be far off.
    """
    rates = [np.ones_like(flops), flops]
    greedy = [_greedy(known, flops, budget, most, rate) for rate in rates]
    best = min(greedy, key=known.after)
    for _ in range(PASSES):
        swapped = _exchanged(known, flops, budget, best)
        if swapped == best:
            break
        best = swapped
    return sorted(best, key=lambda run: flops[run])


def _greedy(known: Information, flops: Array, budget: float, most: int, rate: Array) -> list[int]:
    chosen: list[int] = []
    left = budget
    while len(chosen) < most and (flops <= left).any():
        best = _best(known.gains(chosen) / rate, flops <= left)
        chosen.append(best)
        left -= float(flops[best])
    return chosen


def _exchanged(known: Information, flops: Array, budget: float, runs: list[int]) -> list[int]:
    """Every run in turn replaced by the candidate that is worth most beside the others."""
    runs = list(runs)
    for i in range(len(runs)):
        others = runs[:i] + runs[i + 1 :]
        gains = known.gains(others)
        best = _best(gains, flops <= budget - float(flops[others].sum()))
        if gains[best] > gains[runs[i]] * (1 + 1e-9):
            runs[i] = best
    return runs


def _best(worth: Array, allowed: Mask) -> int:
    return int(np.argmax(np.where(allowed, worth, -np.inf)))
