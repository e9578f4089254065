"""Recommended batch and learning rate beyond the grid they were fitted on: excess loss and coverage.

    python benchmarks/landscape.py worlds --count 25        excess loss, all ways side by side
    python benchmarks/landscape.py dense --count 6          on grids of the size of a public one, three hold-outs
    python benchmarks/landscape.py coverage --count 167     coverage of the intervals, half the worlds in the family
    python benchmarks/landscape.py table [RUNS.csv]         on a recorded grid, the largest settings held out

Synthetic worlds are seeded and their optimum is known (landscape_worlds.py); on a recorded grid (by default our own,
tests/data/cpu_landscape) a recommendation is scored by a cubic surface through each held-out setting. A recommendation
outside the batches and rates that a held-out setting was trained at is a failure. Variants are chosen without the
held-out settings.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from landscape_worlds import DENSE, KINDS, make_world

from scalecli.data.catalogue import PublishedLaw, presets
from scalecli.data.tables import read_runs
from scalecli.errors import FitError
from scalecli.fitters.landscape.grid import Grid, Optimum, place
from scalecli.fitters.landscape.joint import Recipe, fit_joint
from scalecli.fitters.landscape.judged import Ask, judge
from scalecli.fitters.landscape.queries import INPUTS
from scalecli.fitters.landscape.recommend import fit_point
from scalecli.fitters.landscape.settings import group_settings
from scalecli.fitters.landscape.tuned import KNOBS
from scalecli.fitters.law import Array, with_values
from scalecli.fitters.laws.landscape import Landscape
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage
from scalecli.fitters.resample import Clusters
from scalecli.plan.published import published_inputs, published_value

TRAINED = [(params, params * ratio) for params in (6e7, 1.2e8, 2.15e8, 4.3e8) for ratio in (10, 40, 100)]
TARGETS = [(1.07e9, 2e10), (1.07e9, 1e11), (4.3e8, 1e11), (2e9, 4e10)]
COVERAGE_TRAINED = [(params, params * ratio) for params in (6e7, 1.6e8, 4.3e8) for ratio in (10, 30, 100)]
COVERAGE_TARGETS = [(1.07e9, 2e10), (2e9, 8e10)]
OWN = Path(__file__).parents[1] / "tests" / "data" / "cpu_landscape" / "runs.csv"

SYMMETRIC = frozenset({"asymmetry"})

KNOWN = {"params", "params_non_embedding", "params_active", "tokens", "flops", "tokens_per_param"}
"""Inputs of published rules that a target says; a loss is not one of them."""

Setting = tuple[float, float]
"""Params and tokens."""


def ways(x: dict[str, Array], y: Array) -> dict[str, Ask]:
    """Every way of answering from these runs, and every published rule."""
    settings = group_settings(x, y)
    joint, symmetric = fit_point(settings), fit_joint(settings, Recipe(held=SYMMETRIC))
    asymmetric = fit_joint(settings, Recipe())
    two_stage = with_values(LandscapeTwoStage, LandscapeTwoStage.estimate(x, y, np.ones((1, y.size)))[0])
    best = _asking(joint.optimum(), joint.grid)
    answers: dict[str, Ask] = {
        "landscape (joint)": best,
        "landscape without asymmetry": _asking(symmetric.optimum(), symmetric.grid),
        "  basin, asymmetric": _asking(asymmetric.basin.form.optimum(), asymmetric.grid),
        "  basin, symmetric": _asking(symmetric.basin.form.optimum(), symmetric.grid),
        "  three exponentials": _asking(asymmetric.exponentials.form.optimum(), asymmetric.grid),
        "landscape-two-stage": lambda n, t: (
            float(two_stage.optimal_batch_tokens(n, t)),
            float(two_stage.optimal_learning_rate(n, t)),
        ),
    }
    return answers | _published(best)


def _asking(optimum: Optimum, grid: Grid) -> Ask:
    def ask(params: float, tokens: float) -> tuple[float, float]:
        rate, batch = place(optimum, grid, np.log([params]), np.log([tokens]))
        return float(np.exp(batch[0, 0])), float(np.exp(rate[0, 0]))

    return ask


def _published(joint: Ask) -> dict[str, Ask]:
    """Every published rule for an optimum; one that states only a batch, or only a rate, takes the other from ours."""
    answers = {}
    for name, records in presets().items():
        rules = {record.output: record for record in records if record.quantity == "optimum"}
        stated = [knob for knob in KNOBS if knob in rules and not set(published_inputs(rules[knob])) - KNOWN]
        if stated:
            alone = "" if len(stated) == 2 else f" ({stated[0]} only)"
            answers[f"published: {name}{alone}"] = _rule({knob: rules[knob] for knob in stated}, joint)
    return answers


def _rule(rules: dict[str, PublishedLaw], joint: Ask) -> Ask:
    def ask(params: float, tokens: float) -> tuple[float, float]:
        columns = dict.fromkeys(("params", "params_non_embedding", "params_active"), params)
        columns |= {"tokens": tokens, "flops": 6 * params * tokens, "tokens_per_param": tokens / params}
        ours = dict(zip(KNOBS, joint(params, tokens), strict=True))
        theirs = {knob: published_value(rule, columns) or np.nan for knob, rule in rules.items()}
        batch, rate = ((ours | theirs)[knob] for knob in KNOBS)
        return batch, rate

    return ask


def report(excess: dict[str, list[float]]) -> None:
    """Excess loss in per cent of the loss; `failed` counts answers outside the box, or none."""
    print(f"{'way':44}{'mean %':>9}{'worst %':>9}{'failed':>8}{'of':>6}")
    for name, found in excess.items():
        known = np.array([value for value in found if np.isfinite(value)])
        row = (100 * known.mean(), 100 * known.max()) if known.size else (np.nan, np.nan)
        print(f"{name:44}{row[0]:9.4f}{row[1]:9.3f}{len(found) - known.size:8d}{len(found):6d}")


def run_worlds(count: int, first: int) -> None:
    total: dict[str, list[float]] = {}
    for kind in KINDS:
        excess: dict[str, list[float]] = {}
        for seed in range(first, first + count):
            world = make_world(seed, kind)
            answers = ways(*world.runs(TRAINED))
            for params, tokens in TARGETS:
                loss = world.tuned_loss(np.array(params), np.array(tokens))
                for name, ask in answers.items():
                    batch, rate = ask(params, tokens)
                    found = world.excess(params, tokens, np.array(batch), np.array(rate))[0] / loss
                    excess.setdefault(name, []).append(float(found))
        print(f"\n{kind}: {count} worlds x {len(TARGETS)} targets")
        report(excess)
        for name, found in excess.items():
            total.setdefault(name, []).extend(found)
    print("\nall worlds")
    report(total)


def run_coverage(count: int, first: int, draws: int, two_stage: bool) -> None:
    """Three worlds of the family for one of each other kind, so that half are inside it."""
    law = LandscapeTwoStage if two_stage else Landscape
    inside: dict[tuple[str, str], list[bool]] = {}
    widths: dict[tuple[str, str], list[float]] = {}
    for turn in range(count):
        for kind, seed in [("family", first + 3 * turn + i) for i in range(3)] + [
            (kind, first + turn) for kind in KINDS[1:]
        ]:
            world = make_world(seed, kind)
            x, y = world.runs(COVERAGE_TRAINED, rate_step=2.0)
            try:
                bundle = with_values(law, _draws(law, x, y, draws, seed))
                for params, tokens in COVERAGE_TARGETS:
                    batch, rate, _ = world.optimum(params, tokens)
                    for name, truth, answer in (
                        ("batch", batch, bundle.optimal_batch_tokens(params, tokens)),
                        ("learning rate", rate, bundle.optimal_learning_rate(params, tokens)),
                    ):
                        low, high = np.nanquantile(np.log(answer), [0.05, 0.95])
                        inside.setdefault((kind, name), []).append(bool(low <= truth <= high))
                        widths.setdefault((kind, name), []).append(float(high - low))
            except FitError as error:
                print(f"{kind} {seed}: {error.message}")
        if turn % 20 == 19 or turn == count - 1:
            _show(turn + 1, inside, widths)


def _show(
    turns: int, inside: dict[tuple[str, str], list[bool]], widths: dict[tuple[str, str], list[float]]
) -> None:
    print(f"\n{turns * (len(KINDS) + 2)} worlds, {time.process_time():.0f} s of CPU")
    for name in ("batch", "learning rate"):
        for kind in KINDS:
            factor = np.exp(np.median(widths[kind, name]) / 2)
            shown = f"coverage {np.mean(inside[kind, name]):.3f}, median interval ×/÷ {factor:.2f}"
            print(f"{name:15}{kind:14}{shown}")
        for called, kinds in (("outside", KINDS[1:]), ("all", KINDS)):
            every = [i for kind in kinds for i in inside[kind, name]]
            print(f"{name:15}{called:14}coverage {np.mean(every):.3f} of {len(every)} answers", flush=True)


def _draws(
    law: type[Landscape] | type[LandscapeTwoStage], x: dict[str, Array], y: Array, draws: int, seed: int
) -> Array:
    rng = np.random.default_rng(seed)
    clusters = Clusters.of(law.clusters(x), y.size)
    counts = clusters.counts(draws, rng)[:, clusters.label]
    return law.draws(x, y, np.ones(y.size), counts, rng)


def hold_outs(settings: list[Setting]) -> dict[str, set[Setting]]:
    """A third and half of the settings, those of most compute, and all of the largest sizes, a third of them."""
    by_compute = sorted(settings, key=lambda setting: setting[0] * setting[1])
    sizes = sorted({params for params, _ in settings})
    third, half, models = len(settings) // 3, len(settings) // 2, max(1, len(sizes) // 3)
    return {
        f"largest settings ({third})": set(by_compute[-third:]),
        f"largest sizes ({models})": {setting for setting in settings if setting[0] in sizes[-models:]},
        f"largest settings ({half})": set(by_compute[-half:]),
    }


def held_rows(x: dict[str, Array], held: set[Setting]) -> Array:
    """Which rows are of held-out settings, (rows,); tokens are rounded to whole steps."""
    return np.array(
        [
            any(np.allclose(row, setting, rtol=0.02) for setting in held)
            for row in zip(x["params"], x["tokens"], strict=True)
        ]
    )


def run_dense(count: int, first: int, scatter: float) -> None:
    """Every world's dense grid with every hold-out, scored by the true surface."""
    total: dict[str, dict[str, list[float]]] = {}
    for kind in KINDS:
        for seed in range(first, first + count):
            world = make_world(seed, kind, scatter)
            x, y = world.runs(DENSE, batch_step=2**0.5)
            for called, held in hold_outs(DENSE).items():
                large = held_rows(x, held)
                answers = ways({name: column[~large] for name, column in x.items()}, y[~large])
                for params, tokens in held:
                    tried = held_rows(x, {(params, tokens)})
                    loss = world.tuned_loss(np.array(params), np.array(tokens))
                    for name, ask in answers.items():
                        batch, rate = ask(params, tokens)
                        off = float(world.excess(params, tokens, np.array(batch), np.array(rate))[0] / loss)
                        inside = _within(batch, x["batch_tokens"][tried]) and _within(
                            rate, x["learning_rate"][tried]
                        )
                        total.setdefault(called, {}).setdefault(name, []).append(off if inside else np.inf)
        print(f"{kind}: {count} worlds", flush=True)
    for called, excess in total.items():
        print(f"\n{called} held out")
        report(excess)


def _within(value: float, tried: Array) -> bool:
    return bool(tried.min() <= value <= tried.max())


def run_table(path: Path) -> None:
    """Every hold-out of a recorded grid, scored by a surface through each held-out setting."""
    table = read_runs(path, require=[*INPUTS, "loss"])
    columns = table.columns([*INPUTS, "loss"])
    x, y = {name: columns[name] for name in INPUTS}, columns["loss"]
    settings = group_settings(x, y)
    places = list(zip(np.exp(settings.log_params), np.exp(settings.log_tokens), strict=True))
    print(f"{path}: {y.size} runs, {settings.count} settings")
    for called, held in hold_outs(places).items():
        large = held_rows(x, held)
        answers = ways({name: column[~large] for name, column in x.items()}, y[~large])
        print(f"\n{called} held out")
        report(
            {name: [j.excess for j in judge(settings.select(large), ask)] for name, ask in answers.items()}
        )
        show_answers(answers, max(held, key=lambda setting: setting[0] * setting[1]))


def show_answers(answers: dict[str, Ask], setting: Setting) -> None:
    """What every way recommends for one setting: those that fail lie far from what was tried."""
    params, tokens = setting
    print(f"{f'at {params:.4g} params, {tokens:.3g} tokens':44}{'batch':>9}{'rate':>9}")
    for name, ask in answers.items():
        batch, rate = ask(params, tokens)
        print(f"{name:44}{batch:9.3g}{rate:9.2g}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", nargs="?", choices=("worlds", "dense", "coverage", "table"), default="table")
    parser.add_argument("runs", nargs="?", type=Path, default=OWN)
    parser.add_argument(
        "--count",
        type=int,
        default=25,
        help="worlds of each kind; coverage takes three times as many of the family",
    )
    parser.add_argument("--first", type=int, default=10_000, help="first seed")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--scatter", type=float, default=0.1, help="of optima about their laws, in logs")
    parser.add_argument("--two-stage", action="store_true", help="coverage of landscape-two-stage")
    chosen = parser.parse_args()
    if chosen.mode == "worlds":
        run_worlds(chosen.count, chosen.first)
    elif chosen.mode == "coverage":
        run_coverage(chosen.count, chosen.first, chosen.draws, chosen.two_stage)
    elif chosen.mode == "dense":
        run_dense(chosen.count, chosen.first, chosen.scatter)
    else:
        run_table(chosen.runs)


if __name__ == "__main__":
    main()
