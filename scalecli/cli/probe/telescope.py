"""`scalecli probe telescope`: a learning rate carried up in width over grids that shrink."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import finished_runs, show_estimate
from scalecli.cli.probe.training import stored_runs, train_runs
from scalecli.cli.render import show, span, table, warn
from scalecli.errors import NotEnoughSignal
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.data.corpus import Corpus
    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.engines.engine import Engine
    from scalecli.probes.learning_rate.estimate import RateRange
    from scalecli.probes.learning_rate.telescope import Grid
    from scalecli.probes.spec import SweepSpec

MOVES = 2
"""How often a grid may be moved along to its edge before the search is given up."""


def telescope(
    widths: Annotated[
        str, typer.Option("--widths", metavar="FIRST:LAST", help="From the first by doubling to the last.")
    ] = "32:128",
    tokens_per_param: Annotated[float, typer.Option("--tokens-per-param", min=0.1)] = 20.0,
    batch_tokens: probe.BatchTokens = None,
    points: Annotated[int, typer.Option("--points", min=3, help="Rates at the first width.")] = 9,
    octaves: Annotated[
        float, typer.Option("--octaves", min=0.1, help="That they span, about the rate by rule.")
    ] = 8.0,
    learning_rate: probe.LearningRate = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of every rate.")] = 1,
    schedule: probe.Schedule = None,
    optimizer: probe.OptimizerName = None,
    parametrization: probe.Parametrization = "mup",
    sequence_length: probe.SequenceLength = None,
    model: probe.Model = None,
    data: probe.Data = None,
    tokenizer: probe.Tokenizer = None,
    settings: probe.Settings = None,
    device: options.Device = "auto",
    slots: probe.Slots = None,
    timeout: probe.Timeout = None,
    store: options.Store = Path("runs.db"),
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Tune the learning rate at a narrow width and carry it up by doubling, over half the grid each time.

    Depth, batch and tokens a parameter stay. A grid whose best rate is its first or last moves along to it.

    Example: scalecli probe telescope --widths 32:256 --tokens-per-param 20 --store runs.db
    """
    from scalecli.probes.engines.local import LocalEngine
    from scalecli.probes.ladder import default_learning_rate
    from scalecli.probes.learning_rate.telescope import Grid, doubled

    sizes = doubled(*_ends(widths))
    spec = probe.spec_with(
        data=data, settings=settings, model=model, tokenizer=tokenizer, schedule=schedule, optimizer=optimizer,
        parametrization=parametrization, sequence_length=sequence_length, base_width=sizes[0],
        device=device,
    )  # fmt: skip
    search = _Search(spec, probe.read_corpus(spec), sizes, tokens_per_param, batch_tokens, seeds, seed)
    first = search.shape(sizes[0])
    middle = learning_rate or default_learning_rate(first.params, search.batch)
    grid = Grid(middle, octaves, points)
    engine = LocalEngine(device=device, slots=slots)
    if dry_run:
        planned = search.planned(grid)
        show_estimate(planned, store, engine, finished=finished_runs(store), as_json=as_json)
        return
    stages: list[dict[str, Any]] = []
    for width in sizes:
        grid, found = search.at(width, grid, store, engine, timeout)
        start = stages[0]["learning_rate"]["value"] if stages else found.best
        stages.append(_stage(search.shape(width), grid, found, start))
        grid = grid.telescoped(found.best)
    document = {
        "schema": "scalecli/probe-telescope/1",
        "parametrization": spec.recipe.parametrization,
        "tokens_per_param": tokens_per_param,
        "batch_tokens": search.batch,
        "stages": stages,
        "learning_rate": stages[-1]["learning_rate"],
        "octaves_moved": stages[-1]["octaves_from_first"],
        "store": str(store),
    }
    show(document, _draw, as_json=as_json, out=out)


def _ends(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit()):
        raise typer.BadParameter(f"{text!r} is not of the form 32:256", param_hint="--widths")
    return int(first), int(last)


@dataclass(frozen=True, slots=True)
class _Search:
    """The trainings of every width: one depth, one batch, so many tokens a parameter."""

    spec: SweepSpec
    corpus: Corpus
    widths: list[int]
    tokens_per_param: float
    wished_batch: float | None
    seeds: int
    seed: int

    def shape(self, width: int) -> Any:
        family = self.spec.recipe.family(self.corpus)
        narrow = family.member(self.widths[0])
        return narrow if width == self.widths[0] else family.widened(narrow, width)

    @property
    def batch(self) -> float:
        """One for all widths, by rule that of the widest: muP moves no rate over batches."""
        from scalecli.probes.ladder import default_batch_tokens

        longest = self.tokens_per_param * float(self.shape(self.widths[-1]).params)
        return self.wished_batch or default_batch_tokens(longest)

    def configs(self, width: int, grid: Grid) -> list[ProbeConfig]:
        from scalecli.probes.learning_rate.design import at_rates

        shape, recipe = self.shape(width), self.spec.recipe
        middle = recipe.config(
            shape, self.corpus, self.spec.data, tokens=self.tokens_per_param * shape.params, batch_tokens=self.batch,
            learning_rate=grid.centre, seed=self.seed,
        )  # fmt: skip
        return at_rates(replace(middle, evaluation=recipe.evaluation), grid.rates(), seeds=self.seeds)

    def planned(self, grid: Grid) -> list[ProbeConfig]:
        """What would be trained if the best rate stayed where it is looked for first."""
        found = []
        for width in self.widths:
            found += self.configs(width, grid)
            grid = grid.telescoped(grid.centre)
        return found

    def at(
        self, width: int, grid: Grid, store: Path, engine: Engine, timeout: float | None
    ) -> tuple[Grid, RateRange]:
        """The grid that brackets the best rate, and that rate. Raises `NotEnoughSignal` where none does."""
        from scalecli.probes.learning_rate.estimate import rate_range

        tried: list[ProbeConfig] = []
        for move in range(MOVES + 1):
            tried += self.configs(width, grid)
            train_runs(tried, store, engine, timeout=timeout)
            try:
                return grid, rate_range(stored_runs(tried, store))
            except NotEnoughSignal as error:
                if move == MOVES:
                    raise
                warn(f"width {width}: {error.message}; the grid moves there")
                grid = grid.moved(error.estimate)
        raise AssertionError("the last move returns or raises")


def _stage(shape: Any, grid: Grid, found: RateRange, first: float) -> dict[str, Any]:
    return {
        "width": shape.width,
        "params": shape.params,
        "rates": grid.rates(),
        "learning_rate": {"value": found.best, "low": found.low, "high": found.high},
        "loss": found.loss,
        "spacing_octaves": grid.spacing,
        "octaves_from_first": math.log2(found.best / first),
    }


def _draw(document: Any) -> Iterator[RenderableType]:
    rows = (
        (
            stage["width"], format_count(stage["params"]), len(stage["rates"]),
            f"{min(stage['rates']):.3g} … {max(stage['rates']):.3g}", span(stage["learning_rate"]),
            stage["octaves_from_first"], stage["loss"],
        )
        for stage in document["stages"]
    )  # fmt: skip
    heads = ["width", "params", "rates", "from … to", "best (flat range)", "octaves from the first", "loss"]
    yield table(f"Learning rate over width ({document['parametrization']})", heads, rows)
