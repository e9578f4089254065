"""What a batch costs in tokens: from a landscape with a loss law, or from a critical batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.fitters.law import Array
from scalecli.plan.critical import Critical
from scalecli.plan.fits import FitSet
from scalecli.plan.landscape import has_batch
from scalecli.plan.loss import extra_tokens, loss_at
from scalecli.plan.target import Target


class Efficiency(Protocol):
    """What a batch costs in tokens for the same loss."""

    @property
    def source(self) -> str:
        """What it rests on."""
        ...

    @property
    def reference(self) -> str:
        """From where extra tokens are counted, in words."""
        ...

    def extra_tokens(self, batch_tokens: float) -> float | None:
        """Tokens beyond the least for the same loss, as a fraction; None where no tokens make up for the batch."""
        ...

    def largest_within(self, share: float) -> FitInterval:
        """The largest batch [tokens] that costs at most this fraction of extra tokens."""
        ...


@dataclass(frozen=True, slots=True)
class HyperbolaEfficiency:
    """E = E_min (1 + B / B_crit). McCandlish et al. 2018, equation 2.12."""

    critical: Critical
    source: str = "mccandlish2018"
    reference: str = "the smallest batches"

    def extra_tokens(self, batch_tokens: float) -> float | None:
        return batch_tokens / self.critical.tokens.value

    def largest_within(self, share: float) -> FitInterval:
        found = self.critical.tokens
        return FitInterval(share * found.value, _times(found.low, share), _times(found.high, share))


@dataclass(frozen=True, slots=True)
class LandscapeEfficiency:
    """The loss a batch loses with its own best learning rate, and the tokens that make up for it by a loss law."""

    landscape: Fit
    loss: Fit
    target: Target
    source: str = "landscape and loss law"
    reference: str = "the batch of least loss"

    def excess_loss(self, batch_tokens: float) -> float:
        """Nats per token above the best batch."""
        law, target = self.landscape.law, self.target.counted(self.landscape)
        rate = law.optimal_learning_rate_at(target.params, target.tokens, batch_tokens)
        return float(np.squeeze(law.excess_loss(target.params, target.tokens, batch_tokens, rate)))

    def extra_tokens(self, batch_tokens: float) -> float | None:
        return extra_tokens(self.loss, self.target, self.excess_loss(batch_tokens))

    def largest_within(self, share: float) -> FitInterval:
        """The draws of both fits are paired, so that the interval has the uncertainty of both."""
        here = self.target.counted(self.landscape)
        params, tokens = here.params, here.tokens
        gain = self.loss.query(lambda law: self._gain(law, share))
        gains = self.loss.answers(lambda law: self._gain(law, share))

        def upper_end(law: Any) -> Array:
            tuned = law.tuned_loss(params, tokens)
            is_point = np.size(tuned) == 1 or not gains.size
            nats = gain.value if is_point else np.resize(gains, np.shape(tuned))
            _, upper = law.flat_range(params, tokens, nats / tuned).batch_tokens
            return np.asarray(upper)

        return self.landscape.query(upper_end)

    def _gain(self, law: Any, share: float) -> Array:
        """What so many more tokens are worth [nats/token]."""
        here = self.target.counted(self.loss)
        return loss_at(law, here) - loss_at(law, here, tokens_factor=1 + share)


def efficiency_of(fits: FitSet, target: Target, critical: Critical | None) -> Efficiency | None:
    """The best-founded one: the landscape's where it determines a batch, else the hyperbola's; None without either."""
    landscape = fits.landscape
    if landscape is not None and has_batch(landscape, target):
        assert fits.loss_law is not None, "a landscape has one"
        return LandscapeEfficiency(landscape, fits.loss_law, target)
    if critical is not None and critical.is_hyperbola:
        return HyperbolaEfficiency(critical)
    return None


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
