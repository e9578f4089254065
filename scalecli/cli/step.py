"""Options of a training step that several commands have: what the model's blocks are, how they are trained, and how
model and batch lie on devices.

A command that `takes` a group gets its options by name; `values` makes of them the fields of a shape, a recipe or a
layout. Defaults are those of these records.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import typer

from scalecli.cli.options import DEVICES

Command = Callable[..., None]
MODEL, TRAINING, SAVING, TUNING = "Model", "Training step", "Saving memory", "Training a part of the model"


@dataclass(frozen=True, slots=True)
class Setting:
    """One option, and the field that it sets."""

    field: str
    default: Any
    annotation: Any
    parameter: str


def _setting(
    panel: str,
    option: str,
    default: Any,
    help: str,
    *,
    kind: Any = None,
    field: str = "",
    choices: str | None = None,
    least: int | None = None,
) -> Setting:
    """An option of the default's type, unless another is said; named like its field, unless that is said."""
    parameter = option.partition("/")[0].removeprefix("--").replace("-", "_")
    declared = typer.Option(option, help=help, metavar=choices, min=least, rich_help_panel=panel)
    return Setting(field or parameter, default, Annotated[kind or type(default), declared], parameter)


NUMBER, NAME = int | None, str | None

BLOCKS = (
    _setting(MODEL, "--norm", "rms", "", choices="rms|layer"),
    _setting(MODEL, "--activation", "swiglu", "", choices="swiglu|gelu"),
    _setting(MODEL, "--tied", False, "Head and embedding are one matrix."),
    _setting(MODEL, "--qk-norm", False, "Queries and keys are normed, head by head."),
    _setting(MODEL, "--experts", 1, "Experts in every feed-forward block.", field="num_experts"),
    _setting(MODEL, "--experts-per-token", 1, "Experts that a token visits."),
)
"""Fields of a shape beside its sizes."""

RECIPE = (
    _setting(TRAINING, "--precision", "bf16", "", choices="bf16|bf16-autocast|fp32|fp16-unit|fp8|fp8-unit|fp8-lm"),
    _setting(TRAINING, "--master-weights", False, "A float32 copy of narrower weights."),
    _setting(TRAINING, "--moments", None, "Of the optimizer; as the weights are, if not said.", kind=NAME,
             choices="fp32|bf16|fp16|fp8"),
    _setting(TRAINING, "--gradients", None, "A buffer of this format that they are summed in.", kind=NAME,
             choices="fp32|bf16|fp16|fp8"),
    _setting(TRAINING, "--optimizer", "adamw", "",
             choices="adamw|adamw-8bit|lamb|lars|lion|muon|mkor|adafactor|apollo|sgd|sgd-momentum"),
    _setting(TRAINING, "--optimizer-impl", "foreach", "", choices="loop|foreach|fused"),
    _setting(TRAINING, "--optimizer-rank", 256, "Of APOLLO's states."),
    _setting(TRAINING, "--attention", "flash", "", choices="flash|stored"),
    _setting(TRAINING, "--norm-kernel", "fused", "", field="norm", choices="fused|decomposed"),
    _setting(TRAINING, "--dropout", 0.0, "Share of a branch's values that is dropped."),
    _setting(TRAINING, "--accumulation", 1, "Micro-batches of a step, where no --batch says so."),
    _setting(TRAINING, "--capacity-factor", 1.0, "Slots an expert has, relative to perfectly balanced routing.",
             field="expert_capacity"),
    _setting(TRAINING, "--ema-copies", 0, "Float32 averages of the weights that are kept."),
    _setting(TRAINING, "--contrastive-pairs", None, "Pairs of a contrastive loss, in place of head and cross-entropy.",
             kind=NUMBER),
    _setting(TRAINING, "--contrastive-tile", None, "Columns of its similarities that are alive at once, or all.",
             kind=NUMBER),
    _setting(SAVING, "--recompute", "none", "What backward computes again.", choices="none|selective|full"),
    _setting(SAVING, "--recompute-layers", None, "In so many layers of a device, or all.", kind=NUMBER),
    _setting(SAVING, "--logits", "full", "", choices="full|chunked"),
    _setting(SAVING, "--logit-chunks", 8, "Pieces of a chunked loss."),
    _setting(SAVING, "--sequence-chunks", 1, "Pieces of the sequence that a recomputed layer goes backward in."),
    _setting(SAVING, "--saved-compression", 1.0, "Factor by which tensors saved for backward are compressed."),
    _setting(SAVING, "--sampled-rows", 1.0, "Share of the tokens whose inputs are kept for gradients of weights."),
    _setting(TUNING, "--tuning", "all", "What is trained.", choices="all|lora|bitfit|difffit|ia3"),
    _setting(TUNING, "--lora-rank", 0, "Rank of adapters, which alone are trained."),
    _setting(TUNING, "--lora-targets", "attention", "Projections that have adapters.", choices="attention|all"),
    _setting(TUNING, "--base-bits", None, "Of quantised frozen matrices.", kind=NUMBER, choices="4|8"),
)  # fmt: skip
"""Fields of a recipe."""

LAYOUT = (
    _setting(DEVICES, "--tp", 1, "Tensor-parallel ranks.", least=1),
    _setting(DEVICES, "--pp", 1, "Pipeline stages.", least=1),
    _setting(DEVICES, "--cp", 1, "Context-parallel ranks.", least=1),
    _setting(DEVICES, "--ep", 1, "Expert-parallel ranks, out of the data-parallel ones.", least=1),
    _setting(DEVICES, "--sequence-parallel/--no-sequence-parallel", True, "Tensor-parallel ranks split the stream."),
    _setting(DEVICES, "--schedule", "1f1b", "Of the pipeline.", choices="1f1b|interleaved|breadth-first|zero-bubble"),
    _setting(DEVICES, "--virtual-stages", 1, "Model chunks of a pipeline rank."),
    _setting(DEVICES, "--reshard/--no-reshard", True, "zero3 gathers weights again for backward.",
             field="reshard_after_forward"),
    _setting(DEVICES, "--shard-group", None, "Ranks that states are sharded over (hybrid), or all.", kind=NUMBER),
    _setting(DEVICES, "--bucket-views", False, "Gradients under ddp are views of its buckets."),
    _setting(DEVICES, "--offload", "none", "What is in the host's memory between uses.",
             choices="none|optimizer|weights|activations, joined by +"),
    _setting(DEVICES, "--offload-to", "cpu", "", choices="cpu|nvme"),
    _setting(DEVICES, "--offload-layers", None, "Layers whose activations are offloaded, or all.", kind=NUMBER),
    _setting(DEVICES, "--resident-layers", 1, "Layers whose offloaded weights are here at a time."),
    _setting(DEVICES, "--prefetch-layers", 1, "And so many on their way."),
)  # fmt: skip
"""Fields of a layout, without data-parallel ranks and sharding."""


def takes(*groups: tuple[Setting, ...]) -> Callable[[Command], Command]:
    """A command with the options of these groups after its own; it gets them as further keyword arguments."""
    settings = [setting for group in groups for setting in group]

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        more = [
            inspect.Parameter(
                each.parameter,
                inspect.Parameter.KEYWORD_ONLY,
                default=each.default,
                annotation=each.annotation,
            )
            for each in settings
        ]

        @wraps(command)
        def with_more(*args: Any, **values: Any) -> None:
            command(*args, **values)

        with_more.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        with_more.__annotations__ = {p.name: p.annotation for p in (*own, *more)}
        return with_more

    return decorate


def values(group: tuple[Setting, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the options of a group set."""
    return {setting.field: given[setting.parameter] for setting in group}
