"""`scalecli probe noise`: the gradient noise scale along a training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import show_measurement
from scalecli.cli.probe.measuring import Measurement, Rows
from scalecli.cli.progress import step_progress
from scalecli.cli.render import filled_table, show, span
from scalecli.errors import NotEnoughSignal, ProbeError
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.noise.estimate import NoiseScale

QUANTITY = "gradient noise scale tr(Sigma) / |G|^2 (McCandlish et al. 2018, 1812.06162)"
NOT_CRITICAL = (
    "W-NOT-CRITICAL-BATCH",
    "a noise scale is no critical batch size: under Adam the two have been measured an order of magnitude apart; "
    "`scalecli probe critical-batch` measures that one",
)


def noise(
    params: probe.Params,
    tokens: probe.Tokens,
    batch_tokens: probe.BatchTokens = None,
    learning_rate: probe.LearningRate = None,
    windows: Annotated[
        int, typer.Option("--windows", min=1, help="Stretches of the training, each with its own estimate.")
    ] = 4,
    every: Annotated[int, typer.Option("--every", min=1, help="Measure every so many steps.")] = 1,
    micro_batches: Annotated[
        int, typer.Option("--micro-batches", min=2, help="Pieces of a batch whose gradients are compared.")
    ] = 8,
    by_layer: Annotated[
        bool, typer.Option("--by-layer", help="Every weight's own, over the last window.")
    ] = False,
    preconditioned: Annotated[
        bool, typer.Option("--preconditioned", help="Of gradients as Adam scales them.")
    ] = False,
    hessian: Annotated[
        bool,
        typer.Option(
            "--hessian", help="Weighted by the Hessian as well: tr(HΣ) / G'HG, several times as dear."
        ),
    ] = False,
    eta: Annotated[
        float,
        typer.Option(
            "--eta",
            show_default="√½",
            help="Of the norm test: noise that a batch may have, over its gradient.",
        ),
    ] = 0.5**0.5,
    batch_schedule: Annotated[
        Path | None,
        typer.Option(
            "--batch-schedule", help="Write the batches over training here, for `plan --batch-schedule`."
        ),
    ] = None,
    schedule_rule: Annotated[
        str,
        typer.Option("--schedule-rule", metavar="norm-test|noise-scale", help="Whose batches are written."),
    ] = "norm-test",
    interval: options.Level = 0.9,
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
    rows: probe.Rows = None,
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Measure the gradient noise scale along a proxy training, with intervals and the examples they rest on.

    It says where more examples in a batch stop to pay for plain gradient descent near the present weights; it is no
    critical batch size. A stretch that its examples do not resolve is said to be so.

    Examples:

      scalecli probe noise --params 50k --tokens 1M --batch-tokens 4096

      scalecli probe noise --params 50k --tokens 1M --rows noise.csv && scalecli fit noise.csv --law noise-scale
    """
    from scalecli.probes.noise import run as probing

    spec = probe.spec_with(
        data=data, settings=settings, model=model, tokenizer=tokenizer, schedule=schedule, optimizer=optimizer,
        parametrization=parametrization, sequence_length=sequence_length, device=device,
    )  # fmt: skip
    corpus = probe.read_corpus(spec)
    batch = batch_tokens or _batch_tokens(tokens, micro_batches * spec.recipe.sequence_length)
    wished: dict[str, Any] = {
        "params": params,
        "tokens": tokens,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    config = probe.proxy_run(spec, corpus, batch_tokens=batch, **wished)
    what: dict[str, Any] = {
        "start": int(preconditioned),
        "every": every,
        "micro_batches": micro_batches,
        "by_layer": by_layer,
        "preconditioned": preconditioned,
        "hessian": hessian,
    }
    options.one_of(schedule_rule, ("norm-test", "noise-scale"), "--schedule-rule")
    measurement = Measurement("noise", {"run": config.run_id, **what}, store)
    if dry_run:
        show_measurement(measurement, [config], device, as_json=as_json)
        return
    with step_progress("steps") as on_step:
        measured = measurement.rows(
            lambda: probing.run(
                config, probing.NoiseProbe(**what), corpus=corpus, device=device, on_step=on_step
            )
        )
    document = {
        "schema": "scalecli/probe-noise/1",
        "quantity": QUANTITY,
        "unit": "tokens",
        "preconditioned": preconditioned,
        "interval": interval,
        **_estimates(config, measured, windows, by_layer, Bootstrap(interval, seed), eta),
        "store": str(store),
    }
    if rows is not None:
        _write_rows(document, rows)
    if batch_schedule is not None:
        _write_schedule(document, schedule_rule, batch_schedule)
    show(document, _draw, as_json=as_json)


def _batch_tokens(tokens: float, multiple: int) -> float:
    """The default batch, rounded up to what can be cut into the micro-batches."""
    from scalecli.probes.ladder import default_batch_tokens

    return math.ceil(default_batch_tokens(tokens) / multiple) * multiple


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Probability of the intervals, and the seed of what they are resampled with."""

    interval: float
    seed: int


def _estimates(
    config: ProbeConfig, measured: Rows, windows: int, by_layer: bool, bootstrap: Bootstrap, eta: float
) -> dict[str, Any]:
    """One estimate a window, and of the last one an estimate for every weight.

    Raises:
        NotEnoughSignal: no window is resolved; carries the estimate of the last.
        ProbeError: the training diverged, or has fewer measured steps than windows.
    """
    steps = sorted({row["step"] for row in measured})
    if any(row["loss"] is None for row in measured):
        raise ProbeError(
            "the training diverged: its gradients are no numbers", hint="a smaller --learning-rate"
        )
    if len(steps) < 2 * windows:
        raise ProbeError(
            f"{len(steps)} measured steps make no {windows} windows of two",
            hint="train on more --tokens, or give fewer --windows",
        )
    edges = [steps[len(steps) * index // windows] for index in range(windows)] + [steps[-1] + 1]
    stretches = [[row for row in measured if first <= row["step"] < end] for first, end in pairwise(edges)]
    points = [_point(config, stretch, bootstrap) for stretch in stretches]
    if not any(point["resolved"] for point in points):
        _noise_scale(stretches[-1], bootstrap)
    names = sorted({row["layer"] for row in measured} - {"all"}) if by_layer else []
    layers = [_layer(config, stretches[-1], bootstrap, name) for name in names]
    return {
        "run_id": config.run_id,
        "params": config.shape.params,
        "batch_tokens": config.batch_tokens,
        "sequence_length": config.sequence_length,
        "points": points,
        "layers": layers,
        "schedule": _schedule(config, stretches, points, eta),
        "warnings": [{"code": code, "message": message} for code, message in _warnings(points)],
    }


def _point(config: ProbeConfig, stretch: Rows, bootstrap: Bootstrap) -> dict[str, Any]:
    whole = [row for row in stretch if row["layer"] == "all"]
    return {
        "first_step": whole[0]["step"],
        "last_step": whole[-1]["step"],
        "tokens": fmean(row["tokens"] for row in whole),
        "loss": fmean(row["loss"] for row in whole),
        **_resolved(config, whole, bootstrap),
        **(
            {"hessian": _resolved(config, whole, bootstrap, hessian=True)}
            if "hessian_big" in whole[0]
            else {}
        ),
    }


def _layer(config: ProbeConfig, stretch: Rows, bootstrap: Bootstrap, name: str) -> dict[str, Any]:
    """One weight's noise scale, and its inverse a sequence: the ratio of signal to noise, |G|^2 / tr(Sigma).

    Ratios of single entries, as large-batch optimizers use them (GSNR), scatter too much to be told from few steps.
    """
    found = _resolved(config, stretch, bootstrap, name)
    scale, length = found["noise_scale_tokens"], config.sequence_length
    inverse = {"value": "value", "low": "high", "high": "low"}
    signal = {
        end: length / scale[other] if scale[other] and math.isfinite(scale[other]) else None
        for end, other in inverse.items()
    }
    return {"layer": name, **found, "signal_to_noise": signal, "source": "jiang2023gsnr"}


def _schedule(
    config: ProbeConfig, stretches: list[Rows], points: list[dict[str, Any]], eta: float
) -> list[dict[str, Any]]:
    """Step to batch, by the norm test and by the noise scale as it was measured."""
    from scalecli.probes.noise.run import norms_of
    from scalecli.probes.noise.schedule import stages

    length = config.sequence_length
    scales = [point["noise_scale_tokens"]["value"] for point in points]
    found = stages(
        [
            (point["tokens"], point["first_step"], norms_of(stretch))
            for point, stretch in zip(points, stretches, strict=True)
        ],
        [None if scale is None else scale / length for scale in scales],
        eta=eta,
    )
    return [
        {
            "step": stage.step,
            "tokens": stage.tokens,
            "norm_test_batch_tokens": stage.norm_test * length,
            "noise_scale_batch_tokens": scale,
        }
        for stage, scale in zip(found, scales, strict=True)
    ]


def _resolved(
    config: ProbeConfig, stretch: Rows, bootstrap: Bootstrap, layer: str = "all", *, hessian: bool = False
) -> dict[str, Any]:
    """The estimate in tokens with its interval and what it rests on; without an interval where nothing is resolved."""
    measured = [row for row in stretch if row["layer"] == layer]
    rests_on = {"examples": sum(row["big_examples"] for row in measured), "steps": len(measured)}
    length = config.sequence_length
    try:
        found = _noise_scale(measured, bootstrap, layer, hessian=hessian)
    except NotEnoughSignal as error:
        return {
            "noise_scale_tokens": {"value": None, "low": None, "high": None},
            "resolved": False,
            "unresolved_estimate_tokens": error.estimate * length if math.isfinite(error.estimate) else None,
            **rests_on,
        }
    value, low, high = found.tokens(length)
    return {
        "noise_scale_tokens": {"value": value, "low": low, "high": high},
        "resolved": True,
        "signal": found.signal,
        "noise": found.noise,
        **rests_on,
    }


def _noise_scale(
    stretch: Rows, bootstrap: Bootstrap, layer: str = "all", *, hessian: bool = False
) -> NoiseScale:
    from scalecli.probes.noise.estimate import noise_scale
    from scalecli.probes.noise.run import norms_of

    norms = norms_of(stretch, layer, hessian=hessian)
    return noise_scale(norms, interval=bootstrap.interval, seed=bootstrap.seed)


def _warnings(points: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    yield NOT_CRITICAL
    for point in points:
        if not point["resolved"]:
            yield (
                "W-NOT-RESOLVED",
                f"steps {point['first_step']} to {point['last_step']}: {point['examples']} sequences do not "
                "resolve the gradient; fewer --windows, larger batches or more --tokens",
            )


def _write_rows(document: dict[str, Any], path: Path) -> None:
    """One row a resolved window: a run table with noise_scale_tokens over loss."""
    import pandas as pd

    from scalecli.data.formats import write_runs

    common = {name: document[name] for name in ("params", "batch_tokens", "sequence_length")}
    rows = [
        {
            **common,
            "steps": point["last_step"] + 1,
            "tokens": point["tokens"],
            "loss": point["loss"],
            "noise_scale_tokens": point["noise_scale_tokens"]["value"],
        }
        for point in document["points"]
        if point["resolved"]
    ]
    write_runs(pd.DataFrame(rows), path)


def _write_schedule(document: dict[str, Any], rule: str, path: Path) -> None:
    """Tokens and batches: what `plan --batch-schedule` follows. Stretches without a noise scale are left out."""
    import pandas as pd

    from scalecli.data.formats import write_runs

    name = f"{rule.replace('-', '_')}_batch_tokens"
    stages = [stage for stage in document["schedule"] if stage[name] is not None]
    rows = [
        {"steps": stage["step"], "tokens": stage["tokens"], "batch_tokens": stage[name]} for stage in stages
    ]
    write_runs(pd.DataFrame(rows), path)


def _draw(document: Any) -> Iterator[RenderableType]:
    seen = " as Adam scales it" if document["preconditioned"] else ""
    level = f"{100 * document['interval']:g} % interval"
    title = f"Gradient noise scale{seen} [tokens], {level}"
    heads = ["steps", "loss", "noise scale [tokens]", "in the Hessian [tokens]", "sequences it rests on"]
    yield filled_table(title, heads, (_line(point) for point in document["points"]))
    if document["layers"]:
        heads = ["weight", "noise scale [tokens]", "signal / noise a sequence", "sequences it rests on"]
        layers = (
            (layer["layer"], _shown(layer), span(layer["signal_to_noise"]), layer["examples"])
            for layer in document["layers"]
        )
        yield filled_table("By weight, over the last window", heads, layers)
    heads = ["from step", "norm test [tokens]", "noise scale [tokens]"]
    yield filled_table("Batches that would follow", heads, map(_stage, document["schedule"]))


def _line(point: dict[str, Any]) -> tuple[object, ...]:
    curved = _shown(point["hessian"]) if "hessian" in point else None
    steps = f"{point['first_step']}–{point['last_step']}"
    return steps, point["loss"], _shown(point), curved, point["examples"]


def _stage(stage: dict[str, Any]) -> tuple[object, ...]:
    batches = (stage["norm_test_batch_tokens"], stage["noise_scale_batch_tokens"])
    return stage["step"], *(None if batch is None else format_count(batch) for batch in batches)


def _shown(estimate: dict[str, Any]) -> str:
    return span(estimate["noise_scale_tokens"], format_count) if estimate["resolved"] else "not resolved"
