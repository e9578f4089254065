"""What may be spent on a model: compute, days or money, with what comes after training priced in.

A token that the finished model reads or writes is a forward pass: a third of a training token (Sardana et al.,
2401.00448, section 2: 6 N D_train + 2 N D_inference).
"""

from __future__ import annotations

from dataclasses import dataclass

from scalecli.accounting.flops import FLOPS_PER_WEIGHT_TRAINING
from scalecli.errors import PlanError
from scalecli.fitters.law import Array
from scalecli.plan.speed import Speed
from scalecli.units import format_bytes, format_count

FORWARD_SHARE = 1 / 3
SERVED_BYTES = 2  # of a weight of the finished model
SECONDS_PER_DAY, SECONDS_PER_HOUR = 86_400, 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What may be spent (one of compute, days or money), or the loss that is wanted at the least compute or time."""

    flops: float | None = None
    days: float | None = None
    money: float | None = None
    loss: float | None = None
    inference_tokens: float = 0.0
    serve_bytes: float | None = None
    """What the finished model's weights may take, experts counted whole."""

    def __str__(self) -> str:
        named = {"FLOPs": self.flops, "days": self.days}
        text = ", ".join(f"{value:.4g} {name}" for name, value in named.items() if value is not None)
        if self.money is not None:
            text = f"{self.money:,.0f} of money"
        if self.loss is not None:
            text = f"a loss of {self.loss:g}"
        if self.inference_tokens:
            text += f", {format_count(self.inference_tokens)} tokens of inference counted"
        if self.serve_bytes is not None:
            text += f", in {format_bytes(self.serve_bytes)}"
        return text

    @property
    def inference_as_training(self) -> float:
        """The tokens of inference as tokens of training that cost the same."""
        return FORWARD_SHARE * self.inference_tokens

    def seconds(self, speed: Speed) -> float:
        """Of all devices; one day where only a loss is wanted. Raises PlanError for money without a price."""
        if self.money is not None:
            return self.money / price_per_second(speed)
        return SECONDS_PER_DAY * (1.0 if self.days is None else self.days)

    def buys(self, params_active: Array, tokens_per_second: Array | None, speed: Speed | None) -> Array:
        """Tokens that all of it trains at each size; where only a loss is wanted, one day of it, or one FLOP.

        Without devices `tokens_per_second` is None, and nothing but compute counts.
        """
        if self.flops is None and speed is not None and tokens_per_second is not None:
            return self.seconds(speed) * tokens_per_second
        found = (1.0 if self.flops is None else self.flops) / (FLOPS_PER_WEIGHT_TRAINING * params_active)
        return found if tokens_per_second is None else found * (tokens_per_second > 0)


def price_per_second(speed: Speed) -> float:
    """Of all devices together. Raises PlanError where nobody has said it."""
    price = speed.economy.price(speed.fleet.device)
    if not price:
        raise PlanError("money buys nothing without a price", hint="give --price, of one device for an hour")
    return price * speed.fleet.count / SECONDS_PER_HOUR
