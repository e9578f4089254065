"""`scalecli probe train`: one proxy training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.sweep import train_or_estimate
from scalecli.units import parse_count


def train(
    params: probe.Params,
    tokens: probe.Tokens,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-12, help="Peak learning rate.")],
    batch_tokens: Annotated[
        float,
        typer.Option(
            "--batch-tokens", parser=options.quantity(parse_count), metavar="B", help="Tokens a step."
        ),
    ],
    schedule: probe.Schedule = None,
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
    micro_batch: probe.MicroBatch = None,
    checkpoint: probe.Checkpoint = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Train one proxy model and store the run.

    Example: scalecli probe train --params 100k --tokens 2M --batch-tokens 1024 --learning-rate 4e-3
    """
    from scalecli.probes.engines.local import LocalEngine

    spec = probe.spec_with(
        data=data, settings=settings, model=model, tokenizer=tokenizer, schedule=schedule, optimizer=optimizer,
        parametrization=parametrization, sequence_length=sequence_length, device=device,
    )  # fmt: skip
    corpus = probe.read_corpus(spec)
    config = probe.proxy_run(
        spec,
        corpus,
        params=params,
        tokens=tokens,
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        seed=seed,
    )
    config = replace(config, conduct=probe.conduct(store, micro_batch, checkpoint))
    train_or_estimate(
        [config],
        corpus,
        store,
        LocalEngine(device=device, slots=1),
        timeout=None,
        dry_run=dry_run,
        as_json=as_json,
    )
