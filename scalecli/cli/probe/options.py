"""Options that several probes share, and the runs that they name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from scalecli.cli import options
from scalecli.cli.render import warn
from scalecli.units import parse_count, parse_duration

if TYPE_CHECKING:
    from scalecli.data.corpus import Corpus
    from scalecli.probes.config import Conduct, ProbeConfig
    from scalecli.probes.spec import SweepSpec

Params = Annotated[
    float,
    typer.Option(
        "--params", parser=options.quantity(parse_count), metavar="N", help="Model size, e.g. 100k."
    ),
]
Tokens = Annotated[
    float,
    typer.Option("--tokens", parser=options.quantity(parse_count), metavar="D", help="Training tokens."),
]
BatchTokens = Annotated[
    float | None,
    typer.Option(
        "--batch-tokens",
        parser=options.quantity(parse_count),
        metavar="B",
        help="Tokens a step.",
        show_default="by rule, for the tokens",
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", min=1e-12, help="Peak learning rate.", show_default="by rule"),
]
BatchList = Annotated[
    list[str] | None,
    typer.Option("--batch-tokens", metavar="B,...", help="Batches to train at.", show_default="by rule"),
]
RateList = Annotated[
    list[str] | None,
    typer.Option("--learning-rate", metavar="LR,...", help="Peak rates.", show_default="three, by rule"),
]
Schedule = Annotated[
    str | None,
    typer.Option("--schedule", metavar="cooldown|linear|cosine|wsd|constant", show_default="cooldown"),
]
Parametrization = Annotated[
    str | None, typer.Option("--parametrization", metavar="standard|mup", show_default="standard")
]
OptimizerName = Annotated[
    str | None,
    typer.Option("--optimizer", metavar="adamw|sgd|muon|adafactor|lamb|lars|lion", show_default="adamw"),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="hf:CONFIG.json|MODULE:FACTORY",
        help="Another model than our decoder: a transformers configuration, or a task of your own.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of a sweep's file, e.g. recipe.aspect=8 or recipe.optimizer.beta2=0.99. Repeats.",
    ),
]
SequenceLength = Annotated[
    int | None, typer.Option("--sequence-length", min=2, help="Tokens in one sequence.", show_default="128")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH|datasets:NAME|A=PATH:0.7,B=PATH:0.3",
        help="What to train on: a file or folder of text or of token ids, or a mixture.",
        show_default="builtin:python",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="bytes|bpe:SIZE|FILE|ids:SIZE",
        help="How text becomes tokens.",
        show_default="bytes, or ids",
    ),
]
Slots = Annotated[
    int | None,
    typer.Option("--slots", min=1, help="Probes at a time.", show_default="one a core, or one a GPU"),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        parser=options.quantity(parse_duration),
        metavar="DURATION",
        help="Longest time of one probe.",
    ),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--micro-batch",
        min=1,
        metavar="N",
        help="Hold at most N sequences at once; gradients add up.",
        show_default="whole batches",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="DIR",
        help="Keep checkpoints here, and go on from them.",
        show_default="none are kept",
    ),
]
Rows = Annotated[
    Path | None, typer.Option("--rows", help="Also write the measured points as a run table, for `fit`.")
]


def spec_with(
    spec: SweepSpec | None = None,
    *,
    data: str | None = None,
    optimizer: str | None = None,
    settings: Sequence[str] | None = None,
    device: str | None = None,
    **recipe: Any,
) -> SweepSpec:
    """The specification, by default the usual one, with the options that were given; `settings` come first.

    With a `device`, in the number format that suits it unless one was chosen.
    """
    from scalecli.probes.spec import SweepSpec, with_settings

    find_own_modules()
    spec = with_settings(spec or SweepSpec(), settings or ())
    changed = replace(spec.recipe, **{name: value for name, value in recipe.items() if value is not None})
    if optimizer is not None:
        changed = replace(changed, optimizer=replace(changed.optimizer, name=cast(Any, optimizer)))
    if device is not None:
        from scalecli.probes.device import resolve_device

        changed = changed.on(resolve_device(device).type)
    return replace(spec, recipe=changed, data=data or spec.data)


def conduct(
    store: Path, micro_batch: int | None, checkpoint: Path | None, stop_above: float | None = None
) -> Conduct:
    """How runs are carried out; rivals note their losses beside the store."""
    from scalecli.data.store import attempts_folder
    from scalecli.probes.config import Conduct

    return Conduct(
        micro_batch_sequences=micro_batch or 0,
        checkpoints=str(checkpoint.absolute()) if checkpoint else "",
        stop_above=stop_above or 0.0,
        readings=str(attempts_folder(store.absolute()) / "rivals.readings"),
    )


def read_corpus(spec: SweepSpec) -> Corpus:
    """The corpus, with what is worth saying about it on standard error."""
    corpus = spec.corpus()
    for note in corpus.notes:
        warn(f"{note.code}: {note.message}")
    return corpus


def find_own_modules() -> None:
    """Modules of the user's own are found from the working directory, as `python -m` finds them."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def proxy_run(
    spec: SweepSpec,
    corpus: Corpus,
    *,
    params: float,
    tokens: float,
    batch_tokens: float | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
) -> ProbeConfig:
    """One training of a proxy; batch and rate are those that the default grid is centred on, where not given."""
    from scalecli.probes.family import shape_of_size
    from scalecli.probes.ladder import default_batch_tokens, default_learning_rate

    shape = shape_of_size(spec.recipe.family(corpus), params)
    batch = batch_tokens or default_batch_tokens(tokens)
    return spec.recipe.config(
        shape,
        corpus,
        spec.data,
        tokens=tokens,
        batch_tokens=batch,
        learning_rate=learning_rate or default_learning_rate(shape.params, batch),
        seed=seed,
    )


def stable_setting(
    config: ProbeConfig, batch_tokens: int, learning_rate: float, reason: str
) -> dict[str, Any]:
    """The `stable` key of a probe's document: a setting with its largest stable rate, for `plan --probe`."""
    return {
        "params": config.shape.params,
        "tokens": config.tokens,
        "batch_tokens": batch_tokens,
        "learning_rate": learning_rate,
        "optimizer": config.optimizer.name,
        "reason": reason,
    }
