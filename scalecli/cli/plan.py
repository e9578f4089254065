"""`scalecli plan`: the recommendation for a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from scalecli.cli import options, plan_options
from scalecli.cli.model import shape_of
from scalecli.cli.plan_tables import draw_plan
from scalecli.cli.render import show
from scalecli.cli.target import Target
from scalecli.units import parse_count

if TYPE_CHECKING:
    from scalecli.plan.batch import BatchWish


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
    days: plan_options.Days = None,
    money: plan_options.Money = None,
    loss: plan_options.Loss = None,
    tokens_per_param: Annotated[float | None, typer.Option("--tokens-per-param", min=0.0)] = None,
    inference_tokens: plan_options.InferenceTokens = None,
    serve_memory: plan_options.ServeMemory = None,
    experts: plan_options.Experts = "1",
    experts_per_token: plan_options.ExpertsPerToken = 1,
    capacity_factor: options.CapacityFactor = 1.0,
    sequence_length: options.SequenceLength = 2048,
    fit: options.Fits = None,
    rival: Annotated[
        Path | None,
        typer.Option(
            "--rival", help="The loss fit of another recipe: warn where it is better at the target."
        ),
    ] = None,
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
        str | None, typer.Option("--optimizer", show_default="that of the runs, else adamw")
    ] = None,
    recipe: plan_options.TargetRecipe = None,
    algorithm: plan_options.Algorithm = "data-parallel",
    replicas: plan_options.Replicas = None,
    sync_every: plan_options.SyncEvery = 30,
    replica_bandwidth: plan_options.ReplicaBandwidth = None,
    accelerator: options.Accelerator = None,
    count: options.DeviceCount = 1,
    accelerators: options.AcceleratorFile = None,
    price: plan_options.Price = None,
    currency: plan_options.Currency = "USD",
    mfu: plan_options.Mfu = None,
    goodput: plan_options.Goodput = None,
    mtbf: plan_options.Mtbf = None,
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
    from scalecli.data.catalogue.published import Workload
    from scalecli.fitters.fit import Fit
    from scalecli.plan.moving import parse_setting
    from scalecli.plan.plan import PlanOptions, make_plan
    from scalecli.plan.stable import rate_ceilings
    from scalecli.plan.step.conditions import assumed
    from scalecli.plan.target import Wish

    numbers = plan_options.numbers_of_experts(experts)
    wish = Wish(
        params=params, params_kind=options.one_of(params_kind, ("total", "non-embedding"), "--params-kind"),
        shape=plan_options.with_experts_of(
            shape_of(layers, width, ffn, heads, kv_heads, vocab), numbers, experts_per_token
        ),
        vocab=vocab, tokens=tokens, flops=flops, days=days, money=money, loss=loss, tokens_per_param=tokens_per_param,
        inference_tokens=inference_tokens or 0.0, serve_bytes=serve_memory, experts=numbers,
        experts_per_token=experts_per_token, capacity_factor=capacity_factor, sequence_length=sequence_length,
        optimizer=optimizer, accelerator=accelerator, count=count, accelerators=accelerators,
        replicas=plan_options.diloco_replicas(algorithm, replicas), sync_every=sync_every,
        streams=algorithm.startswith("streaming"),
        workload=options.one_of(workload, get_args(Workload), "--workload"), recipe=options.pairs(recipe, "--recipe"),
    )  # fmt: skip
    chosen = PlanOptions(
        interval=interval,
        batch=batch_wish(objective, batch_tokens, max_batch_tokens, max_batch_reason),
        setting=parse_setting(options.pairs(start, "--from")) if start else None,
        budget=None if fix is None else options.one_of(fix, ("data", "compute"), "--fix"),
        course=batch_course(batch_schedule),
        rate_ceilings=rate_ceilings(probe or []),
        economy=plan_options.economy_of(price, currency, mfu, goodput, mtbf),
        conditions=assumed(options.pairs(assume, "--assume")),
        replica_link=replica_bandwidth,
        rival=None if rival is None else Fit.read(rival),
    )
    made = make_plan(wish, [Fit.read(path) for path in fit or []], chosen)
    show(made.document(), draw_plan, as_json=as_json, out=out)


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
