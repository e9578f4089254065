"""Weight decay by AdamW's timescale: how much of the run the weights remember."""

from __future__ import annotations

from scalecli.data.catalogue import published_law
from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.setting import Setting

HELD = "decoupled weight decay, near one tokens-per-parameter ratio"


def timescale(batch_tokens: float, learning_rate: float, weight_decay: float, tokens: float) -> float:
    """tau = B / (lr wd D), the share of the run over which AdamW averages its updates; lr is the peak."""
    return batch_tokens / (learning_rate * weight_decay * tokens)


def constant_timescale(
    setting: Setting, batch_tokens: float, learning_rate: float, tokens: float
) -> Moved | None:
    """wd' that keeps tau. Wang and Aitchison 2024, section 4. None without weight decay to move."""
    if not setting.weight_decay:
        return None
    tau = timescale(setting.batch_tokens, setting.learning_rate, setting.weight_decay, setting.tokens)
    return Moved(
        quantity="weight_decay",
        value=batch_tokens / (learning_rate * tau * tokens),
        rule=f"AdamW timescale B/(lr wd D) kept at {tau:.3g} of the run",
        source="wang2024",
        range=HELD,
    )


def timescale_power_law(
    setting: Setting, batch_tokens: float, learning_rate: float, params: float, tokens: float
) -> Moved | None:
    """wd' with tau moved by its published power of tokens per parameter; None without weight decay to move."""
    if not setting.weight_decay:
        return None
    record = published_law("power-lines-timescale")
    before = record.predict({"tokens_per_param": setting.tokens / setting.params})
    after = record.predict({"tokens_per_param": tokens / params})
    tau = timescale(setting.batch_tokens, setting.learning_rate, setting.weight_decay, setting.tokens)
    moved = tau * after / before
    power = record.exponents["tokens_per_param"]
    return Moved(
        quantity="weight_decay",
        value=batch_tokens / (learning_rate * moved * tokens),
        rule=f"AdamW timescale ∝ (tokens per parameter)^{power:g}: {moved:.3g} of the run",
        source=record.source,
        range=record.setup,
        warning=record.doubt or None,
    )
