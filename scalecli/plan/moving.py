"""One good setting moved to the target: every rule that applies, and the middle of those that disagree.

Order: the batch moves with size and tokens, the learning rate with them along the published optima, then from that
batch to the one that is run, then decays and weight decay follow. Rules that disagree are all shown; the plan takes
their geometric mean and, as interval, their whole span.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from scalecli.data.catalogue import optimizer as known_optimizer
from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit, Interval
from scalecli.plan.rules.half_life import beta2_half_life, ema_half_life
from scalecli.plan.rules.linear import linear
from scalecli.plan.rules.momentum import momentum
from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.optimizer import SGD_LIKE, change_optimizer, shares_decays
from scalecli.plan.rules.scale import scale_by_published
from scalecli.plan.rules.setting import Setting
from scalecli.plan.rules.small_batch import small_batch
from scalecli.plan.rules.square_root import square_root
from scalecli.plan.rules.surge import surge
from scalecli.plan.rules.updates import same_updates
from scalecli.plan.rules.weight_decay import constant_timescale, timescale_power_law
from scalecli.plan.rules.width import width_transfer
from scalecli.plan.target import Target
from scalecli.units import parse_count

SHORT_NAMES = {"batch": "batch_tokens", "lr": "learning_rate"}
NEEDED = ("batch_tokens", "learning_rate", "params", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """Where a setting is moved to, besides the target: its optimizer, and what fits know of the batch."""

    setting: Setting
    target: Target
    optimizer: str
    critical_tokens: float | None = None
    surge: Fit | None = None

    @property
    def keeps_scale(self) -> bool:
        """Whether size and tokens stay as they are."""
        return (self.setting.params, self.setting.tokens) == (self.target.params, self.target.tokens)

    @property
    def adaptive(self) -> bool:
        return self.setting.optimizer not in SGD_LIKE

    @property
    def peak_tokens(self) -> float | None:
        """The batch from which on the best rate was measured to fall."""
        return None if self.surge is None else float(self.surge.law.B_noise)

    def is_past_growth(self, *batches: float) -> bool:
        """Whether one of the batches is where rates have stopped growing: past the critical one, or a surge's peak."""
        return any(
            limit is not None and max(batches) > limit for limit in (self.critical_tokens, self.peak_tokens)
        )


def parse_setting(values: Mapping[str, str]) -> Setting:
    """The setting in `batch=512k,lr=3e-4,params=1B,tokens=20B`; `PlanError` for unknown or missing names."""
    named = {SHORT_NAMES.get(name, name): text for name, text in values.items()}
    known = [entry.name for entry in fields(Setting)]
    for name in named:
        if name not in known:
            raise PlanError(f"--from has no {name!r}; it has batch, lr, {', '.join(known[2:])}")
    missing = [name for name in NEEDED if name not in named]
    if missing:
        raise PlanError(
            f"--from needs {', '.join(missing)} as well",
            hint="--from batch=512k,lr=3e-4,params=1B,tokens=20B",
        )
    numbers = {name: _number(name, text) for name, text in named.items() if name != "optimizer"}
    optimizer = known_optimizer(named.get("optimizer", "adamw")).name
    return Setting(**numbers, optimizer=optimizer)


def _number(name: str, text: str) -> float:
    try:
        return parse_count(text)
    except ValueError as error:
        raise PlanError(f"--from {name}: {error}") from error


def move_batch(journey: Journey) -> list[Moved]:
    """The batch at the target's size and tokens."""
    return _over_scale("batch_tokens", journey)


def move_rate(journey: Journey, batch_tokens: float) -> tuple[Interval | None, list[Moved]]:
    """The learning rate at the target and at `batch_tokens`, and every rule on the way; None where one has no answer.

    Each stage starts from the middle of the one before, so that the spans multiply.
    """
    stages: list[Callable[[float], list[Moved]]] = [
        lambda _: rate_at_scale(journey),
        lambda rate: rate_over_batch(journey, rate, batch_tokens),
    ]
    if journey.optimizer != journey.setting.optimizer:
        stages.append(lambda rate: [change_optimizer(rate, journey.setting.optimizer, journey.optimizer)])
    value, low, high = journey.setting.learning_rate, 1.0, 1.0
    told: list[Moved] = []
    for stage in stages:
        told += stage(value)
        found = middle(stage(value))
        if found is None:
            return None, told
        value, low, high = found.value, low * found.low / found.value, high * found.high / found.value
    return _spanned(value, value * low, value * high), told


def rate_at_scale(journey: Journey) -> list[Moved]:
    """The learning rate at the target's size and tokens, each rule at the batch that moves along."""
    return _over_scale("learning_rate", journey)


def rate_over_batch(journey: Journey, learning_rate: float, batch_tokens: float) -> list[Moved]:
    """The learning rate at the batch that is run, from `learning_rate` at the batch that moved along."""
    from_batch = batch_at_scale(journey)
    factor, past = batch_tokens / from_batch, journey.is_past_growth(from_batch, batch_tokens)
    if not journey.adaptive:
        rules = [linear(learning_rate, factor, past)]
        if journey.setting.beta1:
            rules += momentum(learning_rate, journey.setting.beta1, factor)
    else:
        measured_to_fall = journey.peak_tokens is not None and batch_tokens > journey.peak_tokens
        rules = [] if measured_to_fall else square_root(journey.setting, learning_rate, factor, past)
        rules.append(small_batch(learning_rate, factor, batch_tokens))
        if journey.surge is not None:
            rules.append(surge(learning_rate, from_batch, batch_tokens, journey.surge))
    return [rule for rule in rules if rule.quantity == "learning_rate"]


def report(journey: Journey, batch_tokens: float, peak: Interval | None) -> list[Moved]:
    """Every rule's answer at the batch that is run, for the plan's `moved`; `peak` is the rate that was decided on."""
    _, rules = move_rate(journey, batch_tokens)
    decided = None if peak is None else peak.value
    return [*move_batch(journey), *rules, *companions(journey, batch_tokens, decided)]


def companions(journey: Journey, batch_tokens: float, peak: float | None) -> list[Moved]:
    """What has to move with batch and rate: decays, epsilon, weight decay; and the tokens for as many updates."""
    setting, target = journey.setting, journey.target
    factor = batch_tokens / setting.batch_tokens
    moved: list[Moved | None] = [same_updates(setting.steps, batch_tokens, target.tokens)]
    if shares_decays(setting.optimizer, journey.optimizer):
        moved += _decays(journey, factor, batch_tokens)
    if setting.ema_decay:
        moved.append(ema_half_life(setting.ema_decay, factor))
    if setting.weight_decay and not journey.adaptive:
        moved.append(_kept("weight_decay", setting.weight_decay, journey))
    elif peak is not None:
        moved.append(constant_timescale(setting, batch_tokens, peak, target.tokens))
        moved.append(timescale_power_law(setting, batch_tokens, peak, target.params, target.tokens))
    if setting.width is not None:
        moved += width_transfer(setting, float(target.shape.width))
    return [entry for entry in moved if entry is not None]


def _decays(journey: Journey, factor: float, batch_tokens: float) -> list[Moved | None]:
    """The optimizer's own averages at `factor` times the batch, by every rule for them."""
    setting, past = journey.setting, journey.is_past_growth(journey.setting.batch_tokens, batch_tokens)
    if journey.adaptive:
        half_life = beta2_half_life(setting.beta2, factor) if setting.beta2 else None
        rules = square_root(setting, setting.learning_rate, factor, past)
    else:
        half_life = None
        rules = momentum(setting.learning_rate, setting.beta1, factor) if setting.beta1 else []
    return [half_life, *(rule for rule in rules if rule.quantity != "learning_rate")]


class Middle(NamedTuple):
    """Of rules that disagree: the geometric mean, and the ends of all they say."""

    value: float
    low: float
    high: float

    def interval(self) -> Interval:
        return _spanned(*self)


def _spanned(value: float, low: float, high: float) -> Interval:
    """An interval without ends where one rule speaks alone: it has no spread."""
    return Interval(value, None, None) if low == high else Interval(value, low, high)


def middle(moved: Sequence[Moved]) -> Middle | None:
    """Rules whose range was left count for the ends only, unless all were; None where no rule has a value."""
    known = [entry for entry in moved if entry.value is not None]
    if not known:
        return None
    trusted = [entry for entry in known if entry.warning is None] or known
    logs = [math.log(entry.value) for entry in trusted if entry.value is not None]
    ends = [end for entry in known for end in (entry.low, entry.value, entry.high) if end is not None]
    return Middle(math.exp(sum(logs) / len(logs)), min(ends), max(ends))


def how_moved(found: Interval, rules: Sequence[Moved]) -> str:
    """What made the value of a good setting, in words."""
    if found.low is None:
        return f"your setting: {'; '.join(rule.rule for rule in rules)}"
    return f"your setting, moved by {len(rules)} rules: middle and whole span"


def batch_at_scale(journey: Journey) -> float:
    """The middle of what the rules say of the batch [tokens]."""
    found = middle(move_batch(journey))
    assert found is not None, "what no rule moves is kept"
    return found.value


def _over_scale(quantity: str, journey: Journey) -> list[Moved]:
    """By every published rule of the workload; kept where nothing changes, or none of them says how."""
    setting, target = journey.setting, journey.target
    moves = journey.adaptive and not journey.keeps_scale
    rules = (
        scale_by_published(setting, target.params, target.tokens, quantity, target.workload) if moves else []
    )
    known = any(rule.value is not None for rule in rules)
    return rules if known else [*rules, _kept(quantity, getattr(setting, quantity), journey)]


def _kept(quantity: str, value: float, journey: Journey) -> Moved:
    """The value as it was: nothing changes, or no published rule knows how."""
    if journey.keeps_scale:
        return Moved(
            quantity=quantity,
            value=value,
            rule="size and tokens stay",
            source="you",
            range="this size and length",
        )
    return Moved(
        quantity=quantity,
        value=value,
        rule="kept",
        source="you",
        range="",
        warning=f"no published rule moves {journey.setting.optimizer} over size and tokens in "
        f"{journey.target.workload} training",
    )
