"""Options of `scalecli plan` about what may be spent, on which devices, and how models and replicas are split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scalecli.cli import options
from scalecli.units import parse_bytes, parse_count

if TYPE_CHECKING:
    from scalecli.accounting.shape import ModelShape
    from scalecli.plan.cost import Economy

BUDGET = "What may be spent, or has to be reached"
# Numbers of experts that `--experts auto` chooses from: those that its law was measured with.
NUMBERS = (1, 2, 4, 8, 16, 32)

Days = Annotated[
    float | None,
    typer.Option("--days", min=0.0, help="What the devices train in so many days.", rich_help_panel=BUDGET),
]
Money = Annotated[
    float | None,
    typer.Option("--money", min=0.0, help="What so much buys at --price.", rich_help_panel=BUDGET),
]
Loss = Annotated[
    float | None,
    typer.Option(
        "--loss", min=0.0, help="Reach this loss (nats/token) at the least cost.", rich_help_panel=BUDGET
    ),
]
InferenceTokens = Annotated[
    float | None,
    typer.Option(
        "--inference-tokens",
        parser=options.quantity(parse_count),
        metavar="D",
        help="Tokens that the finished model reads and writes, paid from the same budget.",
        rich_help_panel=BUDGET,
    ),
]
ServeMemory = Annotated[
    float | None,
    typer.Option(
        "--serve-memory",
        parser=options.quantity(parse_bytes),
        metavar="BYTES",
        help="What the finished model's weights may take, e.g. 80GB.",
        rich_help_panel=BUDGET,
    ),
]
Experts = Annotated[
    str,
    typer.Option(
        "--experts",
        metavar="E|auto",
        help="Experts in every feed-forward block; auto finds how many the budget is best spent with.",
    ),
]
ExpertsPerToken = Annotated[int, typer.Option("--experts-per-token", min=1)]
TargetRecipe = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        metavar="NAME=VALUE,...",
        help="How the target is trained, to be warned where runs differ: tokenizer, schedule, loss_kind, "
        "parametrization.",
    ),
]
Algorithm = Annotated[
    str,
    typer.Option(
        "--algo",
        metavar="data-parallel|diloco|streaming-diloco",
        help="How replicas train together.",
    ),
]
Replicas = Annotated[
    int | None, typer.Option("--replicas", min=1, help="Replicas of DiLoCo.", show_default="2")
]
SyncEvery = Annotated[
    int, typer.Option("--sync-every", min=1, help="Steps of DiLoCo's replicas between synchronisations.")
]
ReplicaBandwidth = Annotated[
    float | None,
    typer.Option(
        "--replica-bandwidth",
        parser=options.quantity(parse_count),
        metavar="BITS/S",
        help="Between one of DiLoCo's replicas and the others, e.g. 1G.",
        show_default="the devices' network",
    ),
]
Price = Annotated[
    float | None,
    typer.Option("--price", min=0.0, help="Of one device for an hour.", rich_help_panel=options.DEVICES),
]
Currency = Annotated[str, typer.Option("--currency", rich_help_panel=options.DEVICES)]
Mfu = Annotated[
    float | None,
    typer.Option(
        "--mfu", help="As measured, instead of the step-time model's.", rich_help_panel=options.DEVICES
    ),
]
Goodput = Annotated[
    float | None,
    typer.Option("--goodput", help="Share of the time that makes progress.", rich_help_panel=options.DEVICES),
]
Mtbf = Annotated[
    float | None,
    typer.Option(
        "--mtbf",
        metavar="DAYS",
        help="Mean days between interruptions of one device (failures, or a spot market that takes it back).",
        rich_help_panel=options.DEVICES,
    ),
]


def economy_of(
    price: float | None, currency: str, mfu: float | None, goodput: float | None, mtbf_days: float | None
) -> Economy:
    """What is known of price, speed and interruptions."""
    from scalecli.plan.cost import SECONDS_PER_DAY, Economy

    return Economy(
        price_per_hour=price,
        currency=currency,
        measured_mfu=mfu,
        goodput=goodput,
        device_seconds=None if mtbf_days is None else mtbf_days * SECONDS_PER_DAY,
    )


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


def diloco_replicas(algorithm: str, replicas: int | None) -> int | None:
    """How many replicas train apart: none unless the algorithm is DiLoCo. A usage error for replicas of nothing."""
    algorithms = ("data-parallel", "diloco", "streaming-diloco")
    if options.one_of(algorithm, algorithms, "--algo") != "data-parallel":
        return replicas or 2
    if replicas is not None:
        raise typer.BadParameter("goes with --algo diloco", param_hint="--replicas")
    return None
