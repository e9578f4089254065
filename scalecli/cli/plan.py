"""`scalecli plan`: the recommendation for a target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.memory import draw_memory
from scalecli.cli.model import shape_of
from scalecli.cli.render import show, span, table
from scalecli.cli.target import Target
from scalecli.units import format_count, parse_count

if TYPE_CHECKING:
    from rich.console import RenderableType


def plan(
    target: Target = None,
    params: options.Params = None,
    params_kind: options.ParamsKind = "total",
    layers: options.Layers = None,
    width: options.Width = None,
    ffn: options.Ffn = None,
    heads: options.Heads = None,
    kv_heads: options.KvHeads = None,
    vocab: options.Vocab = 32000,
    tokens: options.Tokens = None,
    flops: options.Flops = None,
    days: Annotated[
        float | None, typer.Option("--days", min=0.0, help="As many tokens as fit into so many days.")
    ] = None,
    tokens_per_param: Annotated[float | None, typer.Option("--tokens-per-param", min=0.0)] = None,
    sequence_length: options.SequenceLength = 2048,
    fit: options.Fits = None,
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            metavar="tokens|time|max-extra-tokens=5%|exchange=X",
            help="What the batch is best for: least tokens, least time on the devices, the largest within so many "
            "extra tokens, or a price of steps in tokens.",
        ),
    ] = "tokens",
    fix: Annotated[
        str | None,
        typer.Option(
            "--fix", metavar="data|compute", help="Which budget published rules must be stated for."
        ),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="NAME=VALUE,...",
            help="A good setting to move: batch, lr, params, tokens; also optimizer, beta1, beta2, epsilon, "
            "weight_decay, ema_decay, width.",
        ),
    ] = None,
    batch_tokens: Annotated[
        float | None,
        typer.Option("--batch-tokens", parser=options.quantity(parse_count), help="Plan for this batch."),
    ] = None,
    max_batch_tokens: Annotated[
        float | None,
        typer.Option("--max-batch-tokens", parser=options.quantity(parse_count), help="No larger batch."),
    ] = None,
    batch_schedule: Annotated[
        str,
        typer.Option(
            "--batch-schedule", metavar="constant|critical", help="Let the batch follow the critical one."
        ),
    ] = "constant",
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="[that of the runs, else adamw]")
    ] = None,
    algorithm: Annotated[
        str, typer.Option("--algo", metavar="data-parallel|diloco", help="How replicas train together.")
    ] = "data-parallel",
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=1, help="Replicas of DiLoCo.  [2]", show_default=False)
    ] = None,
    accelerator: options.Accelerator = None,
    count: options.DeviceCount = 1,
    accelerators: options.AcceleratorFile = None,
    interval: options.Level = 0.9,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Recommend batch size, learning rate, schedule and memory plan for a target, each with interval and source.

    Examples:

      scalecli plan --params 7B --tokens 1.4T --fit loss.fit.json --fit landscape.fit.json --accelerator h100-80g

      scalecli plan --params 1B --tokens-per-param 20      (no runs at all: what published rules say, and their spread)

      scalecli plan --params 7B --tokens 140B --from batch=512k,lr=3e-4,params=1B,tokens=20B      (one good setting)
    """
    from scalecli.fitters.fit import Fit
    from scalecli.plan.batch import BatchWish
    from scalecli.plan.moving import parse_setting
    from scalecli.plan.objectives import parse_objective
    from scalecli.plan.plan import PlanOptions, make_plan
    from scalecli.plan.target import Wish

    wish = Wish(
        params=params, params_kind=options.one_of(params_kind, ("total", "non-embedding"), "--params-kind"),
        shape=shape_of(layers, width, ffn, heads, kv_heads, vocab), vocab=vocab,
        tokens=tokens, flops=flops, days=days, tokens_per_param=tokens_per_param, sequence_length=sequence_length,
        optimizer=optimizer, accelerator=accelerator, count=count, accelerators=accelerators,
        replicas=diloco_replicas(algorithm, replicas),
    )  # fmt: skip
    chosen = PlanOptions(
        interval=interval,
        batch=BatchWish(
            objective=options.quantity(parse_objective)(objective),
            tokens=batch_tokens,
            max_tokens=max_batch_tokens,
        ),
        setting=parse_setting(options.pairs(start, "--from")) if start else None,
        budget=None if fix is None else options.one_of(fix, ("data", "compute"), "--fix"),
        follow_critical=options.one_of(batch_schedule, ("constant", "critical"), "--batch-schedule")
        == "critical",
    )
    made = make_plan(wish, [Fit.read(path) for path in fit or []], chosen)
    show(made.document(), draw_plan, as_json=as_json, out=out)


def diloco_replicas(algorithm: str, replicas: int | None) -> int | None:
    """How many replicas train apart: none unless the algorithm is DiLoCo. A usage error for replicas of nothing."""
    if options.one_of(algorithm, ("data-parallel", "diloco"), "--algo") == "diloco":
        return replicas or 2
    if replicas is not None:
        raise typer.BadParameter("goes with --algo diloco", param_hint="--replicas")
    return None


def draw_plan(document: Any) -> Iterator[RenderableType]:
    """The tables of a plan document."""
    target, batch, rate = document["target"], document["batch"], document["learning_rate"]
    title = f"{format_count(target['params'])} parameters on {format_count(target['tokens'])} tokens"
    yield table(title, ["", "recommended", "within 0.1 % of the loss"], _summary(document))
    if batch["tradeoff"]:
        heads = [
            "batch [tokens]",
            "steps",
            "extra tokens",
            "excess loss",
            "as compute",
            "learning rate",
            "days",
        ]
        yield table("What another batch size would cost", heads, map(_choice, batch["tradeoff"]))
    if document["memory"]:
        yield from draw_memory(document["memory"])
    if len(batch["schedule"]) > 1:
        stages = ((format_count(s["from_token"]), format_count(s["batch_tokens"])) for s in batch["schedule"])
        yield table("Batch over training", ["from token", "batch [tokens]"], stages)
    if document["moved"]:
        heads = ["value", "moved to", "rule", "source", "mind"]
        yield table("Your setting, moved", heads, map(_moved, document["moved"]))
    if document["presets"]:
        heads = ["published rule", "kind", "batch [tokens]", "learning rate", "in range", "note"]
        yield table("What published rules say here", heads, map(_preset, document["presets"]))
    heads = ["line", "value", "rule", "source", "mind"]
    lines = (line for line in document["lines"] if not line["name"].startswith("memory: "))
    yield table(f"Rules and sources ({rate['schedule']} schedule)", heads, map(_line, lines))


def _summary(document: Any) -> Iterator[tuple[object, ...]]:
    batch, rate, optimizer = document["batch"], document["learning_rate"], document["optimizer"]
    yield (
        "batch [tokens]",
        span(batch["tokens"], format_count),
        _range(batch["flat_range_tokens"], format_count),
    )
    yield "batch [sequences]", batch["sequences"], f"of {batch['sequence_length']} tokens"
    yield "steps", batch["steps"], None
    yield "critical batch [tokens]", span(batch["critical_tokens"], format_count), None
    yield "peak learning rate", span(rate["peak"]), _range(rate["flat_range"], "{:.3g}".format)
    yield "schedule", f"{rate['schedule']}, to {rate['final'] or 0:.3g}", None
    yield "warm-up [tokens]", rate["warmup_tokens"] and format_count(rate["warmup_tokens"]), None
    betas = f"betas {optimizer['beta1']:g}, {optimizer['beta2']:g}" if optimizer["beta1"] is not None else ""
    yield "optimizer", f"{optimizer['name']} {betas}, weight decay {optimizer['weight_decay']:g}", None
    yield "loss [nats/token]", span(document["loss"]), None
    if document["cost"]:
        yield "days", span(document["cost"]["days"]), f"MFU {span(document['cost']['mfu'])}"


def _range(ends: Any, read: Any) -> str | None:
    return None if ends is None else f"{read(ends[0])} … {read(ends[1])}"


def _choice(choice: Any) -> tuple[object, ...]:
    extra, compute = choice["extra_tokens_fraction"], choice["excess_compute_fraction"]
    shares = [None if share is None else f"{share:.1%}" for share in (extra, compute)]
    loss = choice["excess_loss"]
    cost = (shares[0], None if loss is None else f"{loss:.4f}", shares[1])
    return (
        format_count(choice["batch_tokens"]),
        choice["steps"],
        *cost,
        choice["learning_rate"],
        choice["days"],
    )


def _line(line: Any) -> tuple[object, ...]:
    value = line["value"] if isinstance(line["value"], str) else span(line)
    return line["name"], value, line["rule"], line["source"], line["warning"]


def _preset(preset: Any) -> tuple[object, ...]:
    batch = preset["batch_tokens"]
    said = None if batch is None else format_count(batch)
    valid = "yes" if preset["valid"] else "no"
    return preset["source"], preset["quantity"], said, preset["learning_rate"], valid, preset["note"]


def _moved(entry: Any) -> tuple[object, ...]:
    return entry["quantity"], span(entry), entry["rule"], entry["source"], entry["warning"]
