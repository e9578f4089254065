"""`scalecli probe stability`: which batches and rates train without rises of the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import show_measurement
from scalecli.cli.probe.measuring import Measurement
from scalecli.cli.progress import step_progress
from scalecli.cli.render import show, table
from scalecli.errors import NotEnoughSignal
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.stability.estimate import Cap

RATE_FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The default rates, as multiples of the rate by rule: up from where trainings are usually stable."""
BATCH_FACTORS = (1.0, 4.0)


def stability(
    params: probe.Params,
    tokens: probe.Tokens,
    batch_tokens: probe.BatchList = None,
    learning_rate: probe.RateList = None,
    optimizer: probe.OptimizerName = None,
    parametrization: probe.Parametrization = None,
    sequence_length: probe.SequenceLength = None,
    model: probe.Model = None,
    data: probe.Data = None,
    tokenizer: probe.Tokenizer = None,
    settings: probe.Settings = None,
    device: options.Device = "auto",
    store: options.Store = Path("runs.db"),
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Find the largest learning rate at each batch that trains without rises of the loss.

    Beside the verdict: the size of updates in rates and their correlation with the gradient, which rose together before
    large models diverged under Adam. `plan --probe FILE` keeps a plan's rate under the cap of the first batch, moved to
    the target.

    Example: scalecli probe stability --params 30k --tokens 200k --batch-tokens 512,2048 --out stability.json
    """
    from scalecli.probes.ladder import default_batch_tokens
    from scalecli.probes.stability import run as probing
    from scalecli.probes.stability.estimate import caps, trained

    spec = probe.spec_with(
        data=data, settings=settings, model=model, tokenizer=tokenizer, optimizer=optimizer,
        parametrization=parametrization, sequence_length=sequence_length, schedule="constant", device=device,
    )  # fmt: skip
    corpus = probe.read_corpus(spec)
    batches = options.counts(batch_tokens, "--batch-tokens") or tuple(
        factor * default_batch_tokens(tokens) for factor in BATCH_FACTORS
    )
    config = probe.proxy_run(spec, corpus, params=params, tokens=tokens, batch_tokens=batches[0], seed=seed)
    rates = options.counts(learning_rate, "--learning-rate") or tuple(
        float(f"{factor * config.learning_rate:.3g}") for factor in RATE_FACTORS
    )
    sizes = tuple(max(1, round(batch / config.sequence_length)) for batch in batches)
    configs = probing.pairs(config, probing.StabilityProbe(batches=sizes, rates=rates))
    measurement = Measurement("stability", {"runs": [each.run_id for each in configs]}, store)
    if dry_run:
        show_measurement(measurement, configs, device, as_json=as_json)
        return
    with step_progress("trainings") as on_step:
        rows = measurement.rows(lambda: probing.run(configs, corpus=corpus, device=device, on_step=on_step))
    found = trained(rows)
    limits = caps(found)
    document = {
        "schema": "scalecli/probe-stability/1",
        "params": config.shape.params,
        "tokens": config.tokens,
        "optimizer": config.optimizer.name,
        "trained": [_plain(options.plain(each)) for each in found],
        "caps": [options.plain(cap) for cap in limits],
        "stable": _stable(config, limits, sizes[0] * config.sequence_length),
        "warnings": [{"code": code, "message": message} for code, message in _warnings(limits)],
        "store": str(store),
    }
    show(document, _draw, as_json=as_json, out=out)


def _stable(config: ProbeConfig, limits: Sequence[Cap], batch_tokens: int) -> dict[str, Any]:
    """The setting whose rate is the cap, for `plan --probe`. Raises `NotEnoughSignal` where no rate was stable."""
    cap = next(cap for cap in limits if cap.batch_tokens == batch_tokens)
    if cap.learning_rate is None:
        raise NotEnoughSignal(
            f"no rate was stable at a batch of {batch_tokens} tokens",
            estimate=0.0,
            hint="give smaller --learning-rate values",
        )
    reason = "the largest rate without a rise of the loss in `probe stability`"
    return probe.stable_setting(config, batch_tokens, cap.learning_rate, reason)


def _warnings(limits: Sequence[Cap]) -> Iterator[tuple[str, str]]:
    for cap in limits:
        if cap.open:
            yield (
                "W-NO-LIMIT-FOUND",
                f"batch of {cap.batch_tokens} tokens: every rate was stable, the limit is above "
                f"{cap.learning_rate:.3g}; give larger --learning-rate values",
            )


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Infinities as null: a training that diverged has no finite rise."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in entry.items()
    }


def _draw(document: Any) -> Iterator[RenderableType]:
    heads = [
        "batch [tokens]",
        "learning rate",
        "",
        "rise [nats]",
        "update size [rates]",
        "correlation",
        "loss",
    ]
    rows = (
        (
            format_count(each["batch_tokens"]), each["learning_rate"], "stable" if each["stable"] else "not stable",
            each["rise"], each["update_size"], each["correlation"], each["loss"],
        )
        for each in document["trained"]
    )  # fmt: skip
    yield table("Stability over batches and rates", heads, rows)
    caps = (
        (format_count(cap["batch_tokens"]), cap["learning_rate"], _limit(cap)) for cap in document["caps"]
    )
    yield table("Largest stable rate", ["batch [tokens]", "learning rate", ""], caps)


def _limit(cap: dict[str, Any]) -> str:
    if cap["learning_rate"] is None:
        return "none was stable"
    return "no larger one was tried" if cap["open"] else "the next one was not stable"
