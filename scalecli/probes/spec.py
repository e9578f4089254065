"""A sweep written down: the TOML file of `probe sweep --spec`, and the same things given as options."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from scalecli.data.corpus import Corpus
from scalecli.data.mixture import mixture_text
from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.corpora import corpus_for
from scalecli.probes.engines.settings import EngineSettings
from scalecli.probes.ladder import (
    TOKENS_PER_PARAM,
    Cost,
    Recipe,
    default_batch_tokens,
    default_learning_rate,
    grid,
    ladder,
)
from scalecli.units import parse_count

COUNTS = ("params", "tokens_per_param", "batch_tokens", "learning_rate", "unique_tokens")
RUN_KEYS = {"params", "tokens", "batch_tokens", "learning_rate"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A grid of runs. Without `params` the sizes are what the budget allows; empty lists mean the defaults.
    `unique_tokens` limits the training text to its first so many tokens, for studies of repetition.

    `runs` are single runs in place of a grid, as `scalecli design --spec` writes them: params, tokens and, where
    they are not the defaults, batch_tokens and learning_rate. A run listed twice is trained with two seeds.

    The file has these names as keys, counts as numbers or as `"50k"`, and `recipe`, `recipe.optimizer`,
    `recipe.evaluation`, `engine` and `engine.slurm` as tables, `runs` as an array of tables.
    """

    data: str = "builtin:python"
    params: tuple[float, ...] = ()
    tokens_per_param: tuple[float, ...] = TOKENS_PER_PARAM
    batch_tokens: tuple[float, ...] = ()
    learning_rate: tuple[float, ...] = ()
    unique_tokens: tuple[float, ...] = ()
    seeds: int = 1
    rungs: int = 3
    recipe: Recipe = field(default_factory=Recipe)
    engine: EngineSettings = field(default_factory=EngineSettings)
    runs: tuple[tuple[tuple[str, float], ...], ...] = ()

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.rungs < 1:
            raise ProbeError(
                f"{self.seeds} seeds of {self.rungs} rungs are no sweep", hint="use at least 1 of each"
            )

    def corpus(self) -> Corpus:
        """What the runs train on: DataError when it cannot be read."""
        return corpus_for(self.recipe.model, self.data, self.recipe.tokenizer)

    def configs(
        self, corpus: Corpus, *, budget: float | None = None, cost: Cost | None = None
    ) -> list[ProbeConfig]:
        """The runs. With a budget the ladder is as large as it allows, and given sizes must fit into it.

        Raises:
            ProbeError: there are neither sizes nor a budget, or the budget is too small.
        """
        common: dict[str, Any] = {
            "tokens_per_param": self.tokens_per_param,
            "batch_tokens": self.batch_tokens or None,
            "learning_rates": self.learning_rate or None,
            "unique_tokens": self.unique_tokens,
            "seeds": self.seeds,
            "recipe": self.recipe,
        }
        if not self.params and not self.runs:
            if budget is None or cost is None:
                raise ProbeError(
                    "a sweep needs sizes or a budget",
                    hint="give --params 50k,100k, --budget 1e15 or --minutes 5",
                )
            return ladder(corpus, self.data, budget=budget, cost=cost, rungs=self.rungs, **common)
        configs = self._listed(corpus) or grid(corpus, self.data, params=self.params, **common)
        if budget is not None and cost is not None and cost(configs) > budget:
            raise ProbeError(
                f"these {len(configs)} runs take {cost(configs):.3g}, the budget is {budget:.3g}",
                hint="raise the budget, or give fewer or smaller runs",
            )
        return configs

    def _listed(self, corpus: Corpus) -> list[ProbeConfig]:
        configs = []
        for items, count in Counter(self.runs).items():
            run = dict(items)
            batch = run.get("batch_tokens", default_batch_tokens(run["tokens"]))
            rate = run.get("learning_rate", default_learning_rate(run["params"], batch))
            configs += grid(
                corpus,
                self.data,
                params=(run["params"],),
                tokens_per_param=(run["tokens"] / run["params"],),
                batch_tokens=(batch,),
                learning_rates=(rate,),
                seeds=count * self.seeds,
                recipe=self.recipe,
            )
        return configs


Part = TypeVar("Part")
"""A specification, or one of the tables in it."""


def with_settings(spec: SweepSpec, texts: Sequence[str]) -> SweepSpec:
    """The specification with keys of its file given as text: `recipe.optimizer.beta2=0.99`.

    Raises:
        ProbeError: there is no such key, or the value is not of its type.
    """
    for text in texts:
        path, _, value = text.partition("=")
        table: Any = _read_value(value.strip())
        for name in reversed(path.strip().split(".")):
            table = {name: table}
        spec = _filled(spec, table)
    return spec


def _read_value(text: str) -> Any:
    """A TOML value; anything that is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def sweep_spec(path: Path) -> SweepSpec:
    """Reads a TOML file.

    Raises:
        ProbeError: the file cannot be read, is no TOML, or has a key or a value that a sweep does not know.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ProbeError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ProbeError(f"{path} is no TOML: {error}") from error
    try:
        return _filled(SweepSpec(), content)
    except ProbeError as error:
        raise ProbeError(f"{path}: {error.message}", hint=error.hint) from error


def _filled(part: Part, table: Any) -> Part:
    """The dataclass with the values of a table; a key, or a type other than its own, is a ProbeError."""
    if not isinstance(table, dict):
        raise ProbeError(f"{table!r} should be a table")
    known = {each.name: getattr(part, each.name) for each in fields(part)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - set(known)):
        raise ProbeError(f"a sweep has no {unknown[0]!r}", hint=f"known are {', '.join(known)}")
    changes = {
        name: _filled(known[name], value) if is_dataclass(known[name]) else _checked(name, known[name], value)
        for name, value in table.items()
    }
    return replace(part, **changes)  # type: ignore[type-var]


def _checked(name: str, usual: Any, value: Any) -> Any:
    """The value, if it is of the type of the usual one."""
    if name == "runs":
        return _runs(value)
    if name == "data" and isinstance(value, dict):
        return mixture_text(value)
    if name in COUNTS:
        return _counts(name, value)
    if name == "probes_per_device":
        return str(value)
    if isinstance(usual, dict) and isinstance(value, dict):
        return {**usual, **value}
    kind = type(usual)
    if not isinstance(value, (int, float) if kind is float else kind):
        raise ProbeError(f"{name} should be of type {kind.__name__}, not {value!r}")
    return value


def _runs(tables: Any) -> tuple[tuple[tuple[str, float], ...], ...]:
    """Every `[[runs]]` table as its sorted items."""
    if not (isinstance(tables, list) and tables and all(isinstance(table, dict) for table in tables)):
        raise ProbeError(f"runs should be tables, not {tables!r}", hint="[[runs]] begins each")
    for table in tables:
        if not {"params", "tokens"} <= table.keys() <= RUN_KEYS:
            raise ProbeError(
                f"a run has {', '.join(sorted(table))}; it needs params and tokens and may have "
                "batch_tokens and learning_rate"
            )
    return tuple(tuple((name, _counts(name, table[name])[0]) for name in sorted(table)) for table in tables)


def _counts(name: str, values: Any) -> tuple[float, ...]:
    """Numbers, or counts as people write them, in a list or alone."""
    given = values if isinstance(values, list) else [values]
    try:
        counts = tuple(parse_count(value) if isinstance(value, str) else float(value) for value in given)
    except (TypeError, ValueError) as error:
        raise ProbeError(f"{name}: {error}") from error
    if not counts or min(counts) <= 0:
        raise ProbeError(f"{name} must be positive numbers, not {values!r}")
    return counts
