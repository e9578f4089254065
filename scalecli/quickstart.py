"""The whole way in one function: ladder, fits, plan, the target trained, predicted against measured.

The plan is written before the target is trained, so that the prediction is one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import Corpus, load_corpus
from scalecli.data.store import Store
from scalecli.data.tables import RunTable, read_runs
from scalecli.errors import DataError, ExportError, FitError
from scalecli.export.files import write_text
from scalecli.export.formats import render
from scalecli.export.quickstart import to_markdown
from scalecli.fitters.checks.frontier import best_of_settings
from scalecli.fitters.fit import Fit, FitOptions
from scalecli.fitters.laws import law_named
from scalecli.fitters.runs import NO_GROUPS, fit_runs
from scalecli.plan.document import Interval, Plan
from scalecli.plan.plan import PlanOptions, make_plan
from scalecli.plan.rules.setting import Setting
from scalecli.plan.target import Wish
from scalecli.probes.config import Evaluation, ProbeConfig
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.engines.local import LocalEngine
from scalecli.probes.family import SMALLEST_WIDTH, member, proxy_shape
from scalecli.probes.ladder import RUNG_RATIO, Cost, Recipe, grid, ladder
from scalecli.probes.sweep import OnProgress, SweepReport, run_sweep
from scalecli.probes.timing import StepTime, measure_step_time
from scalecli.report.quickstart import draw_quickstart

LENGTHS = (4.0, 8.0, 16.0)
"""Tokens a parameter of every rung; one long run branches into all of them. Shorter when the minutes are few."""
SHORTEST = 0.1
"""The most that lengths are shortened: below half a token a parameter nothing is learned."""
RATE_PER_LENGTH = 0.5
"""Short runs like high rates: the centre of the grid moves by this power of the length (docs/benchmarks.md)."""
LENGTH_ROUNDING = 0.2
"""Lengths that differ by less are one: lengths of the ladder differ by factors of two."""
RUNGS = 3
TARGET_SIZE = 1.6
"""The target, as a multiple of the largest rung."""
TARGET_LENGTH = 0.75
"""Its tokens a parameter, as a share of the ladder's longest; it is still the longest run, and the largest."""
TARGET_SEEDS = 3
LADDER_SHARE = 0.28
"""Share of the time that the ladder is made for; the target and its alternatives have what is left of it."""
REPORT_SHARE = 0.06
"""Share of the time kept for starting processes, for fits and for the report."""
TARGET_SIZE_MARGIN = 1.3
"""Rows above this multiple of the largest rung are the target's, not the ladder's."""

EDGE_ROUNDS = 2
"""How often the grid is widened where its best run lies at an edge."""

RECIPE = Recipe(sequence_length=64, evaluation=Evaluation(sequences=256))

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user says of a quickstart."""

    minutes: float = 5.0
    seed: int = 0
    device: str = "auto"
    data: str = "builtin:python"
    interval: float = 0.9


@dataclass(slots=True, kw_only=True)
class Clock:
    """How much of the minutes is left, and how much slower than expected things went so far."""

    minutes: float
    slowness: float = 1.0
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that may still go into training."""
        return 60 * self.minutes * (1 - REPORT_SHARE) - (time.monotonic() - self.started)


@dataclass(frozen=True, slots=True)
class Rival:
    """One way to train the target."""

    name: str
    config: ProbeConfig


def quickstart(
    out: Path, settings: Settings, *, announce: Announce, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Measure, fit, plan, and check the plan on a model larger than any that was measured.

    Writes `runs.db`, `loss.fit.json`, `landscape.fit.json`, `plan.json`, `summary.md`, `prediction.svg` (with the plot
    extra) and `quickstart.json` into the folder `out`, and returns the last. Called again with the same settings it
    trains only what is missing. Raises what its parts raise, `ExportError` when the folder cannot be written.
    """
    clock = Clock(minutes=settings.minutes)
    corpus = load_corpus(settings.data)
    design = Design.stored_or_measured(out, settings, corpus, announce)
    runs = _measure(out, design, settings, clock, announce, on_progress)
    announce("fitting the laws and writing the plan")
    fits = fit_ladder(runs, settings, announce)
    for fit in fits:
        fit.write(out / f"{'landscape' if fit.law.name.startswith('landscape') else 'loss'}.fit.json")
    plan = plan_target(design, fits, runs, corpus)
    write_text(out / "plan.json", render(plan, "json"))
    rivals = design.affordable(target_runs(plan, runs, design, corpus), clock)
    announce(f"training the target {len(rivals)} times: as recommended, and otherwise")
    _train(out, [rival.config for rival in rivals], settings, on_progress)
    document = compare(plan, rivals, read_runs(out / "runs.db"), settings)
    _report(out, document, runs)
    return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What is trained and what it costs: kept in `design.json`, so that a second call goes on where the first ended."""

    ladder: tuple[ProbeConfig, ...]
    pace: StepTime
    capacity: Capacity

    @property
    def largest_params(self) -> int:
        return max(config.shape.params for config in self.ladder)

    @property
    def target_shape(self) -> ModelShape:
        """The model that the plan is for: larger than any rung, of the same family."""
        return proxy_shape(TARGET_SIZE * self.largest_params, vocab=self.ladder[0].shape.vocab)

    @classmethod
    def stored_or_measured(cls, out: Path, settings: Settings, corpus: Corpus, announce: Announce) -> Design:
        """The design stored for these settings and this corpus, else one whose measured time fits the minutes."""
        key = {**asdict(settings), "data_sha256": corpus.sha256}
        kept = out / "design.json"
        if kept.exists():
            stored = json.loads(kept.read_text(encoding="utf-8"))
            if stored.pop("key", None) == key:
                configs = tuple(ProbeConfig.from_dict(config) for config in stored.pop("ladder"))
                pace, capacity = StepTime(**stored["pace"]), Capacity(**stored["capacity"])
                return cls(ladder=configs, pace=pace, capacity=capacity)
        announce("measuring how fast this machine trains")
        made = cls.measured(settings, corpus)
        write_text(kept, json.dumps({"key": key, **asdict(made)}, indent=1))
        return made

    @classmethod
    def measured(cls, settings: Settings, corpus: Corpus) -> Design:
        """The largest ladder within its share of the minutes, by the time of a few steps."""
        capacity = LocalEngine(device=settings.device).capacity()

        def of_size(params: float) -> ProbeConfig:
            shape = proxy_shape(params, vocab=corpus.vocab)
            return RECIPE.config(
                shape,
                corpus,
                settings.data,
                tokens=params,
                batch_tokens=512,
                learning_rate=1e-3,
                seed=settings.seed,
            )

        pace = measure_step_time([of_size(16_000), of_size(128_000)], device=settings.device)
        runs = _affordable_ladder(
            corpus,
            settings.data,
            LADDER_SHARE * 60 * settings.minutes,
            lambda configs: pace.sweep_seconds(configs, capacity),
        )
        return cls(
            ladder=tuple(replace(config, seed=settings.seed) for config in runs),
            pace=pace,
            capacity=capacity,
        )

    def seconds(self, configs: Sequence[ProbeConfig]) -> float:
        return self.pace.sweep_seconds(configs, self.capacity)

    def affordable(self, rivals: Sequence[Rival], clock: Clock) -> list[Rival]:
        """As many as the minutes allow, in their order of importance; the recommended setting always."""
        kept = list(rivals)
        while (
            len(kept) > TARGET_SEEDS and clock.slowness * self.seconds([r.config for r in kept]) > clock.left
        ):
            kept.pop()
        return kept


def _affordable_ladder(corpus: Corpus, data: str, budget: float, cost: Cost) -> list[ProbeConfig]:
    """The largest ladder of full length within the budget [s], or the smallest one with runs cut short to fit."""
    smallest = member(SMALLEST_WIDTH, corpus.vocab).params
    sizes = [smallest * RUNG_RATIO**rung for rung in range(RUNGS)]
    full = grid(corpus, data, params=sizes, tokens_per_param=LENGTHS, recipe=RECIPE)
    share = budget / cost(full)
    if share >= 1.0:
        return ladder(
            corpus, data, budget=budget, cost=cost, rungs=RUNGS, tokens_per_param=LENGTHS, recipe=RECIPE
        )
    share = max(share, SHORTEST)
    cut = grid(corpus, data, params=sizes, tokens_per_param=[share * each for each in LENGTHS], recipe=RECIPE)
    raised = share**-RATE_PER_LENGTH
    return [replace(config, learning_rate=float(f"{raised * config.learning_rate:.2g}")) for config in cut]


def _measure(
    out: Path,
    design: Design,
    settings: Settings,
    clock: Clock,
    announce: Announce,
    on_progress: OnProgress | None,
) -> RunTable:
    """Train the ladder, and then beyond the edges at which the best runs of a size lie, while there is time."""
    configs = list(design.ladder)
    announce(f"training {len(configs)} runs of the ladder")
    report = _train(out, configs, settings, on_progress)
    if report.finished == report.planned:
        clock.slowness = report.seconds / design.seconds(configs)
    for _ in range(EDGE_ROUNDS):
        runs = _ladder_runs(out, design)
        more = beyond_edges(configs, runs)
        if not more or clock.slowness * design.seconds(more) > clock.left * LADDER_SHARE:
            break
        announce(f"the best of some sizes lies at an edge of the grid: training {len(more)} runs beyond it")
        configs += more
        _train(out, configs, settings, on_progress)
    return _ladder_runs(out, design)


def _ladder_runs(out: Path, design: Design) -> RunTable:
    return read_runs(out / "runs.db", where=f"params < {TARGET_SIZE_MARGIN * design.largest_params}")


def beyond_edges(configs: Sequence[ProbeConfig], runs: RunTable) -> list[ProbeConfig]:
    """Runs a factor of two beyond the grid, on the sides on which the best long run of a size lies at its edge."""
    losses = dict(zip(runs.frame["run_id"], runs.frame["loss"], strict=True))
    more = []
    for size in sorted({config.shape.params for config in configs}):
        tried = [config for config in configs if config.shape.params == size]
        longest = max(config.tokens for config in tried)
        finished = [c for c in tried if c.run_id in losses and c.tokens > longest * (1 - LENGTH_ROUNDING)]
        if finished:
            more += list(_widened(tried, min(finished, key=lambda config: losses[config.run_id])))
    return more


def _widened(tried: Sequence[ProbeConfig], best: ProbeConfig) -> Iterator[ProbeConfig]:
    """The grid's next column or row beyond the best run, if that lies in the last one."""
    rates = sorted(
        {config.learning_rate for config in tried if config.batch_sequences == best.batch_sequences}
    )
    batches = sorted({config.batch_sequences for config in tried})
    if best.learning_rate in (rates[0], rates[-1]):
        factor, outermost = (2.0, max) if best.learning_rate == rates[-1] else (0.5, min)
        for batch in batches:
            column = [config for config in tried if config.batch_sequences == batch]
            edge = outermost(config.learning_rate for config in column)
            for config in column:
                if config.learning_rate == edge:
                    yield replace(config, learning_rate=factor * edge)
    if best.batch_sequences in (batches[0], batches[-1]):
        sequences = (
            best.batch_sequences * 2 if best.batch_sequences == batches[-1] else best.batch_sequences // 2
        )
        for config in tried:
            if config.batch_sequences == best.batch_sequences and sequences >= 1:
                yield _with_batch(config, sequences)


def _with_batch(config: ProbeConfig, sequences: int) -> ProbeConfig:
    """The same run with another batch, and the learning rate moved by the square root: where its optimum likely is."""
    ratio = sequences / config.batch_sequences
    warmup = replace(config.schedule, warmup_steps=round(config.schedule.warmup_steps / ratio))
    rate = config.learning_rate * ratio**0.5
    return replace(
        config,
        batch_sequences=sequences,
        steps=round(config.steps / ratio),
        learning_rate=rate,
        schedule=warmup,
    )


def _train(
    out: Path, configs: Sequence[ProbeConfig], settings: Settings, on_progress: OnProgress | None
) -> SweepReport:
    with Store.open(out / "runs.db") as store:
        return run_sweep(configs, store, LocalEngine(device=settings.device), on_progress=on_progress)


def fit_ladder(runs: RunTable, settings: Settings, announce: Announce) -> list[Fit]:
    """The loss law through the best run of every setting, and the landscape through all runs if it has an optimum."""
    options = FitOptions(interval=settings.interval, seed=settings.seed)
    loss = fit_runs(best_of_settings(runs), law_named("chinchilla"), group=NO_GROUPS, options=options)
    try:
        return [loss, fit_runs(runs, law_named("landscape-two-stage"), options=options)]
    except FitError as error:
        announce(f"no landscape: {error.message}; rules move the best run instead")
        return [loss]


def plan_target(design: Design, fits: Sequence[Fit], runs: RunTable, corpus: Corpus) -> Plan:
    """The plan for a model larger than any rung, trained on more tokens than any of them.

    Where no landscape could be fitted, or it does not determine the batch, rules move the best run of the largest rung.
    """
    shape = design.target_shape
    longest = max(config.tokens / config.shape.params for config in design.ladder)
    tokens = min(TARGET_LENGTH * longest * shape.params, float(corpus.unique_tokens))
    wish = Wish(shape=shape, tokens=tokens, sequence_length=RECIPE.sequence_length, vocab=corpus.vocab)
    best = _best_run(runs, float(runs.frame["params"].max()))
    start = Setting(
        batch_tokens=best["batch_tokens"], learning_rate=best["learning_rate"], params=best["params"],
        tokens=best["tokens"], optimizer=RECIPE.optimizer.name,
    )  # fmt: skip
    return make_plan(wish, fits, PlanOptions(interval=fits[0].interval, setting=start))


def _best_run(runs: RunTable, params: float) -> dict[str, float]:
    """The run of least loss at this size: its size, length, batch and rate."""
    rows: Any = runs.frame[runs.frame["params"] == params]
    best = rows.loc[rows["loss"].idxmin()]
    return {name: float(best[name]) for name in ("params", "tokens", "batch_tokens", "learning_rate")}


def target_runs(plan: Plan, runs: RunTable, design: Design, corpus: Corpus) -> list[Rival]:
    """The recommended setting with three seeds, then the alternatives, the most telling first."""
    batch, peak = plan.batch, plan.learning_rate.peak
    if batch.sequences is None or peak is None:
        raise DataError(
            "the ladder does not determine a batch and a learning rate", hint="give more --minutes"
        )
    tokens, rate = batch.sequences * batch.sequence_length, peak.value
    shape = design.target_shape
    first = design.ladder[0]

    def run(name: str, batch_tokens: float, learning_rate: float, seed: int = first.seed) -> Rival:
        config = RECIPE.config(
            shape, corpus, first.data, tokens=plan.target.tokens, batch_tokens=batch_tokens,
            learning_rate=learning_rate, seed=seed,
        )  # fmt: skip
        return Rival(name, config)

    tuned = _best_run(runs, float(runs.frame["params"].min()))
    return [
        *(run("recommended", tokens, rate, first.seed + extra) for extra in range(TARGET_SEEDS)),
        run("smallest rung's tuned setting", tuned["batch_tokens"], tuned["learning_rate"]),
        run("learning rate × 2", tokens, 2 * rate),
        run("learning rate ÷ 2", tokens, rate / 2),
        *_preset_run(plan, run),
        run("batch × 4", 4 * tokens, rate),
        run("batch ÷ 4", tokens / 4, rate),
    ]


def _preset_run(plan: Plan, run: Callable[[str, float, float], Rival]) -> Iterator[Rival]:
    """The first published rule that says both a batch and a learning rate."""
    for preset in plan.presets:
        if preset.quantity == "optimum" and preset.batch_tokens and preset.learning_rate:
            yield run(f"published preset {preset.source}", preset.batch_tokens, preset.learning_rate)
            return


def compare(plan: Plan, rivals: Sequence[Rival], runs: RunTable, settings: Settings) -> dict[str, Any]:
    """Predicted against measured, and what the recommendation gains; evaluation error and seed noise kept apart."""
    assert plan.loss is not None
    rows = runs.frame.set_index("run_id")
    found: dict[str, Any] = {
        rival.config.run_id: rows.loc[rival.config.run_id]
        for rival in rivals
        if rival.config.run_id in rows.index
    }
    ours = [
        found[rival.config.run_id]
        for rival in rivals
        if rival.name == "recommended" and rival.config.run_id in found
    ]
    if not ours:
        raise DataError("no run of the recommended setting finished", hint="scalecli runs list runs.db")
    losses = [float(row["loss"]) for row in ours]
    others = [rival for rival in rivals if rival.name != "recommended"]
    low, high = plan.loss.low, plan.loss.high
    mean = fmean(losses)
    return {
        "schema": "scalecli/quickstart/1",
        "target": plan.target.model_dump(mode="json"),
        "interval": settings.interval,
        "recommended": {
            "batch_tokens": rivals[0].config.batch_tokens,
            "learning_rate": rivals[0].config.learning_rate,
        },
        "plan": {
            "batch_tokens": _dumped(plan.batch.tokens),
            "learning_rate": _dumped(plan.learning_rate.peak),
            "batch_flat_range": plan.batch.flat_range_tokens,
            "learning_rate_flat_range": plan.learning_rate.flat_range,
        },
        "predicted": plan.loss.model_dump(mode="json"),
        "measured": {
            "loss": mean,
            "losses": losses,
            "seed_std": stdev(losses) if len(losses) > 1 else None,
            "evaluation_std": float(ours[0]["loss_std"]),
            "inside_interval": low is not None and high is not None and low <= mean <= high,
        },
        "alternatives": [_alternative(rival, found.get(rival.config.run_id), mean) for rival in others],
        "files": {
            name: name
            for name in (
                "runs.db",
                "loss.fit.json",
                "landscape.fit.json",
                "plan.json",
                "summary.md",
                "prediction.svg",
            )
        },
        "warnings": [warning.model_dump(mode="json") for warning in plan.warnings],
    }


def _dumped(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else found.model_dump(mode="json")


def _alternative(rival: Rival, row: Any, recommended_loss: float) -> dict[str, Any]:
    loss = None if row is None else float(row["loss"])
    return {
        "name": rival.name,
        "batch_tokens": rival.config.batch_tokens,
        "learning_rate": rival.config.learning_rate,
        "loss": loss,
        "gain": None if loss is None else loss - recommended_loss,
        "status": "not finished" if row is None else str(row["status"]),
    }


def _report(out: Path, document: dict[str, Any], runs: RunTable) -> None:
    """The summary, the picture where matplotlib is there, and the document."""
    try:
        points: Any = runs.frame[["flops", "loss"]].to_dict("records")
        draw_quickstart(out / "prediction.svg", points, document)
    except ExportError as error:
        document["files"].pop("prediction.svg")
        document["warnings"].append({"code": "W-NO-PICTURE", "message": f"{error.message}: {error.hint}"})
    write_text(out / "summary.md", to_markdown(document))
    write_text(out / "quickstart.json", json.dumps(document, indent=1, allow_nan=False))
