"""`scalecli plan`: the recommendation for a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.model import shape_of
from scalecli.cli.plan_tables import draw_plan
from scalecli.cli.render import show
from scalecli.cli.target import Target
from scalecli.units import parse_bytes, parse_count

if TYPE_CHECKING:
    from scalecli.accounting.shape import ModelShape
    from scalecli.plan.batch import BatchWish

BUDGET = "What may be spent, or has to be reached"
# Numbers of experts that `--experts auto` chooses from: those that its law was measured with.
NUMBERS = (1, 2, 4, 8, 16, 32)


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
        float | None,
        typer.Option(
            "--days", min=0.0, help="What the devices train in so many days.", rich_help_panel=BUDGET
        ),
    ] = None,
    money: Annotated[
        float | None,
        typer.Option("--money", min=0.0, help="What so much buys at --price.", rich_help_panel=BUDGET),
    ] = None,
    loss: Annotated[
        float | None,
        typer.Option(
            "--loss", min=0.0, help="Reach this loss [nats/token] at the least cost.", rich_help_panel=BUDGET
        ),
    ] = None,
    tokens_per_param: Annotated[float | None, typer.Option("--tokens-per-param", min=0.0)] = None,
    inference_tokens: Annotated[
        float | None,
        typer.Option(
            "--inference-tokens",
            parser=options.quantity(parse_count),
            metavar="D",
            help="Tokens that the finished model reads and writes, paid from the same budget.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    serve_memory: Annotated[
        float | None,
        typer.Option(
            "--serve-memory",
            parser=options.quantity(parse_bytes),
            metavar="BYTES",
            help="What the finished model's weights may take, e.g. 80GB.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    experts: Annotated[
        str,
        typer.Option(
            "--experts",
            metavar="E|auto",
            help="Experts in every feed-forward block; auto finds how many the budget is best spent with.",
        ),
    ] = "1",
    experts_per_token: Annotated[int, typer.Option("--experts-per-token", min=1)] = 1,
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
    max_batch_reason: Annotated[
        str, typer.Option("--max-batch-reason", help="Why, for the plan: memory of a graph, say.")
    ] = "as wished",
    batch_schedule: Annotated[
        str,
        typer.Option(
            "--batch-schedule",
            metavar="constant|critical|FILE",
            help="Let the batch follow the critical one, or the course of a table of tokens and batch_tokens.",
        ),
    ] = "constant",
    probe: Annotated[
        list[Path] | None,
        typer.Option(
            "--probe",
            help="A document of `probe lr`, `probe stability` or `probe curvature` (repeat): no rate over what was "
            "stable there, moved to the target.",
        ),
    ] = None,
    workload: Annotated[
        str,
        typer.Option(
            "--workload",
            metavar="language|fine-tuning|video-diffusion",
            help="What is trained: whose published rules count.",
        ),
    ] = "language",
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="[that of the runs, else adamw]")
    ] = None,
    algorithm: Annotated[
        str,
        typer.Option(
            "--algo",
            metavar="data-parallel|diloco|streaming-diloco",
            help="How replicas train together.",
        ),
    ] = "data-parallel",
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=1, help="Replicas of DiLoCo.  [2]", show_default=False)
    ] = None,
    sync_every: Annotated[
        int, typer.Option("--sync-every", min=1, help="Steps of DiLoCo's replicas between synchronisations.")
    ] = 30,
    replica_bandwidth: Annotated[
        float | None,
        typer.Option(
            "--replica-bandwidth",
            parser=options.quantity(parse_count),
            metavar="BITS/S",
            help="Between one of DiLoCo's replicas and the others, e.g. 1G.  [the devices' network]",
            show_default=False,
        ),
    ] = None,
    accelerator: options.Accelerator = None,
    count: options.DeviceCount = 1,
    accelerators: options.AcceleratorFile = None,
    price: Annotated[
        float | None,
        typer.Option("--price", min=0.0, help="Of one device for an hour.", rich_help_panel=options.DEVICES),
    ] = None,
    currency: Annotated[str, typer.Option("--currency", rich_help_panel=options.DEVICES)] = "USD",
    mfu: Annotated[
        float | None,
        typer.Option(
            "--mfu", help="As measured, instead of the step-time model's.", rich_help_panel=options.DEVICES
        ),
    ] = None,
    goodput: Annotated[
        float | None,
        typer.Option(
            "--goodput", help="Share of the time that makes progress.", rich_help_panel=options.DEVICES
        ),
    ] = None,
    mtbf: Annotated[
        float | None,
        typer.Option(
            "--mtbf",
            metavar="DAYS",
            help="Mean days between interruptions of one device (failures, or a spot market that takes it back).",
            rich_help_panel=options.DEVICES,
        ),
    ] = None,
    assume: options.Assume = None,
    interval: options.Level = 0.9,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Recommend batch size, learning rate, schedule and memory plan for a target, each with interval and source.

    Examples:

      scalecli plan --params 7B --tokens 1.4T --fit loss.fit.json --fit landscape.fit.json --accelerator h100-80g

      scalecli plan --params 1B --tokens-per-param 20      (no runs at all: what published rules say, and their spread)

      scalecli plan --params 7B --tokens 140B --from batch=512k,lr=3e-4,params=1B,tokens=20B      (one good setting)

      scalecli plan --money 50000 --price 2.5 --accelerator h100-80g --count 64 --inference-tokens 1T      (which size?)
    """
    from scalecli.fitters.fit import Fit
    from scalecli.plan.cost import SECONDS_PER_DAY, Economy
    from scalecli.plan.moving import parse_setting
    from scalecli.plan.plan import PlanOptions, make_plan
    from scalecli.plan.stable import rate_ceilings
    from scalecli.plan.step.conditions import assumed
    from scalecli.plan.target import Wish

    workloads = ("language", "fine-tuning", "video-diffusion")
    numbers = numbers_of_experts(experts)
    wish = Wish(
        params=params, params_kind=options.one_of(params_kind, ("total", "non-embedding"), "--params-kind"),
        shape=with_experts_of(
            shape_of(layers, width, ffn, heads, kv_heads, vocab), numbers, experts_per_token
        ),
        vocab=vocab, tokens=tokens, flops=flops, days=days, money=money, loss=loss, tokens_per_param=tokens_per_param,
        inference_tokens=inference_tokens or 0.0, serve_bytes=serve_memory, experts=numbers,
        experts_per_token=experts_per_token, sequence_length=sequence_length, optimizer=optimizer,
        accelerator=accelerator, count=count, accelerators=accelerators,
        replicas=diloco_replicas(algorithm, replicas), sync_every=sync_every, streams=algorithm.startswith("streaming"),
        workload=options.one_of(workload, workloads, "--workload"),
    )  # fmt: skip
    chosen = PlanOptions(
        interval=interval,
        batch=batch_wish(objective, batch_tokens, max_batch_tokens, max_batch_reason),
        setting=parse_setting(options.pairs(start, "--from")) if start else None,
        budget=None if fix is None else options.one_of(fix, ("data", "compute"), "--fix"),
        course=batch_course(batch_schedule),
        rate_ceilings=rate_ceilings(probe or []),
        economy=Economy(
            price_per_hour=price, currency=currency, measured_mfu=mfu, goodput=goodput,
            device_seconds=None if mtbf is None else mtbf * SECONDS_PER_DAY,
        ),
        conditions=assumed(options.pairs(assume, "--assume")),
        replica_link=replica_bandwidth,
    )  # fmt: skip
    made = make_plan(wish, [Fit.read(path) for path in fit or []], chosen)
    show(made.document(), draw_plan, as_json=as_json, out=out)


def numbers_of_experts(text: str) -> tuple[int, ...]:
    """The number of experts, or those that one is chosen from; a usage error for anything else."""
    if text == "auto":
        return NUMBERS
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is not auto or a number from 1 on", param_hint="--experts")
    return (int(text),)


def with_experts_of(
    shape: ModelShape | None, numbers: tuple[int, ...], experts_per_token: int
) -> ModelShape | None:
    """The wished shape with the wished number of experts."""
    from scalecli.accounting.shape import with_experts

    if shape is None or len(numbers) > 1:
        return shape
    return with_experts(shape, numbers[0], experts_per_token)


def batch_wish(objective: str, tokens: float | None, most: float | None, reason: str) -> BatchWish:
    """What the batch is to be best for, or what it is to be, and its ceiling."""
    from scalecli.plan.batch import BatchWish
    from scalecli.plan.ceiling import BatchCeiling
    from scalecli.plan.objectives import parse_objective

    ceilings = () if most is None else (BatchCeiling(tokens=most, reason=reason),)
    return BatchWish(objective=options.quantity(parse_objective)(objective), tokens=tokens, ceilings=ceilings)


def batch_course(text: str) -> Any:
    """`constant`, `critical`, or the table in a file; a usage error for anything else."""
    from scalecli.plan.course import Table

    if text in ("constant", "critical"):
        return text
    if not Path(text).is_file():
        raise typer.BadParameter(
            f"{text!r} is not constant, critical, or a file", param_hint="--batch-schedule"
        )
    return Table.read(Path(text))


def diloco_replicas(algorithm: str, replicas: int | None) -> int | None:
    """How many replicas train apart: none unless the algorithm is DiLoCo. A usage error for replicas of nothing."""
    algorithms = ("data-parallel", "diloco", "streaming-diloco")
    if options.one_of(algorithm, algorithms, "--algo") != "data-parallel":
        return replicas or 2
    if replicas is not None:
        raise typer.BadParameter("goes with --algo diloco", param_hint="--replicas")
    return None
