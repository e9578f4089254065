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
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import Array
from scalecli.fitters.problem import Indices, Mask

TAIL = 0.005
"""Draws beyond these quantiles are moved to them: a variance should not hang on the wildest draw."""

SHARED = 0.5
"""Of the variance of a run's noise, the part that all runs of its model size are taken to share (their shape and
tuning are the same), so that ten runs of one size never look like ten independent measurements."""

PASSES = 5
"""Rounds of exchanges; one or two are enough in nearly all cases."""


@dataclass(frozen=True)
class Information:
    """What the fit knows of an answer and of what the runs of every candidate setting would measure.

    With s settings of r runs each, `answer` is the variance of the log answer, `cross` (s r,) its covariance
    with the log losses of the runs, `joint` (s r, s r) theirs with each other, what runs of one size share
    included; `noise` (s r,) the variance of what a run shares with no other. `runs` is r.
    """

    answer: float
    cross: Array
    joint: Array
    noise: Array
    runs: int

    def after(self, settings: list[int]) -> float:
        """The variance of the answer once these settings (repeats allowed) are trained and fitted."""
        rows = self._rows(settings)
        return float(self.answer - self.cross[rows] @ np.linalg.solve(self._measured(rows), self.cross[rows]))

    def gains(self, settings: list[int]) -> Array:
        """By how much each candidate, trained besides these, would still reduce the variance, (s,)."""
        rows = self._rows(settings)
        solved = np.linalg.solve(self._measured(rows), np.column_stack([self.joint[rows], self.cross[rows]]))
        blocks = np.arange(len(self.cross)).reshape(-1, self.runs)
        seen = self.joint[:, rows][blocks]  # (s, r, rows)
        cross = self.cross[blocks] - seen @ solved[:, -1]
        own = self.joint[blocks[:, :, None], blocks[:, None]] - seen @ solved[:, :-1].T[blocks].swapaxes(1, 2)
        own = own + self.noise[blocks][:, :, None] * np.eye(self.runs)
        gained: Array = (cross * np.linalg.solve(own, cross[:, :, None])[:, :, 0]).sum(1)
        return gained

    def _rows(self, settings: list[int]) -> Indices:
        return (np.array(settings, dtype=np.intp)[:, None] * self.runs + np.arange(self.runs)).ravel()

    def _measured(self, rows: Indices) -> Array:
        """Covariance of what these runs will measure, (rows, rows)."""
        measured: Array = self.joint[np.ix_(rows, rows)] + np.diag(self.noise[rows])
        return measured


def information(fit: Fit, answer: Answer, candidates: Candidates) -> Information:
    """Covariances over the draws that have an answer."""
    columns = {name: column.ravel() for name, column in candidates.columns.items()}
    with np.errstate(all="ignore"):
        spread = np.log(fit.bundle().predict(columns))[answer.kept]
    everything = np.column_stack([answer.log_draws, spread])
    usable = everything[np.isfinite(everything).all(1)]
    usable = np.clip(usable, *np.quantile(usable, [TAIL, 1 - TAIL], axis=0))
    covariance = np.cov(usable, rowvar=False)
    typical = float(np.var(np.clip(fit.band.noise, *np.quantile(fit.band.noise, [TAIL, 1 - TAIL]))))
    typical = max(typical, np.finfo(float).eps * float(np.trace(covariance)))
    size, count = candidates.sizes().ravel(), candidates.sizes().shape[1]
    spread_of = np.sqrt(typical) * fit.band.noise_factor(np.log(np.repeat(candidates.flops / count, count)))
    joint = covariance[1:, 1:] + SHARED * (size[:, None] == size) * np.outer(spread_of, spread_of)
    return Information(float(covariance[0, 0]), covariance[0, 1:], joint, (1 - SHARED) * spread_of**2, count)


def choose_settings(known: Information, flops: Array, budget: float, most: int) -> list[int]:
    """At most `most` settings within the budget, best for the answer: greedy, then by exchange.

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


def _exchanged(known: Information, flops: Array, budget: float, chosen: list[int]) -> list[int]:
    """Every setting in turn replaced by the candidate that is worth most beside the others."""
    chosen = list(chosen)
    for i in range(len(chosen)):
        others = chosen[:i] + chosen[i + 1 :]
        gains = known.gains(others)
        best = _best(gains, flops <= budget - float(flops[others].sum()))
        if gains[best] > gains[chosen[i]] * (1 + 1e-9):
            chosen[i] = best
    return chosen


def _best(worth: Array, allowed: Mask) -> int:
    return int(np.argmax(np.where(allowed, worth, -np.inf)))
