"""Published results of the dense laws against ours, from the public tables in tests/data.

Porian's exponents by approaches 1, 2 and 3; the bias of approach 2 on exact losses; the test errors of the
multi-power law; translation curves extrapolated to their last point; Clark's routed laws; Muennighoff's constants.

    python benchmarks/published_laws.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scalecli.data.catalogue import published_law
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.law import Array, Columns, with_values
from scalecli.fitters.laws import law_named
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.clark import Clark
from scalecli.fitters.laws.multi_power import MultiPower
from scalecli.fitters.laws.repeated_data import RepeatedData
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.size_line import power_line
from scalecli.fitters.solver import solve
from scalecli.fitters.vertices import CUBIC_WINDOW, PARABOLA_WINDOW, vertices

DATA = Path(__file__).parents[1] / "tests" / "data"
DELTA = 1e-3


def main() -> None:
    for title, header, rows in (porian(), bias(), curves(), translation(), routed(), repeated()):
        print(f"\n**{title}**\n")
        print("| " + " | ".join(header) + " |")
        print("|" + "---|" * len(header))
        for row in rows:
            print("| " + " | ".join(str(cell) for cell in row) + " |")


Section = tuple[str, Sequence[str], Iterator[Sequence[Any]]]


def porian() -> Section:
    points = pd.read_csv(DATA / "porian_openwebtext2/isoflop_points.csv")
    published = pd.read_csv(DATA / "porian_openwebtext2/published_exponents.csv")
    keys = ["hparams", "warmup", "decay", "flop_count"]

    def rows() -> Iterator[Sequence[Any]]:
        for _, one in published.iterrows():
            runs = points[(points[keys] == one[keys]).all(axis=1)]
            x = {name: runs[name].to_numpy(float) for name in ("flops", "params", "tokens")}
            cells = []
            for name in ("envelope", "isoflop", "isoflop-cubic", "chinchilla"):
                groups = runs.params.to_numpy() if name == "chinchilla" else None
                fit = _fit(name, x, runs.loss.to_numpy(), groups)
                interval = fit.query(
                    lambda law: np.log10(law.optimal_params(1e21) / law.optimal_params(1e20))
                )
                cells.append(f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})")
            span = f"{one.params_exponent:.3f} ({one.ci_low:.3f} to {one.ci_high:.3f})"
            yield [", ".join(one[keys]), span, *cells]

    header = ["set-up", "published (95 %)", "envelope (90 %)", "parabola", "cubic", "Chinchilla"]
    return "Exponent of N*(C), Porian et al. 2024, OpenWebText2", header, rows()


def bias() -> Section:
    def rows() -> Iterator[Sequence[Any]]:
        for alpha, beta in ((0.34, 0.28), (0.465, 0.155)):
            law = Chinchilla(E=1.69, A=406.4, B=410.7, alpha=alpha, beta=beta)
            for reach, drift in ((8, 1.0), (8, 1 / 3), (16, 1.0), (16, 1 / 3)):
                x, loss = _grid(law, reach, drift)
                kinds = [(2, np.inf), (2, PARABOLA_WINDOW), (3, np.inf), (3, CUBIC_WINDOW)]
                errors = [_bias(law, x, loss, degree, window) for degree, window in kinds]
                joint = _point("chinchilla", x, loss).optimal_tokens(1e24) / law.optimal_tokens(1e24) - 1
                yield [f"{alpha}/{beta}", f"{reach}x", f"{drift:.2g}", *errors, f"{joint:+.1%}"]

    header = [
        "exponents",
        "grid",
        "drift",
        "parabola",
        "in its window",
        "cubic",
        "in its window",
        "joint fit",
    ]
    return "Error of D*(1e24) by approach 2, exact losses, five budgets of fifteen sizes", header, rows()


def _grid(law: Chinchilla, reach: float, drift: float) -> tuple[dict[str, Array], Array]:
    budgets = np.geomspace(6e18, 3e21, 5)
    centres = law.optimal_params(budgets) * np.geomspace(1, drift, 5)
    params = (np.asarray(centres)[:, None] * np.geomspace(1 / reach, reach, 15)).ravel()
    flops = np.repeat(budgets, 15)
    x = {"flops": flops, "params": params, "tokens": flops / 6 / params}
    return x, law.predict(x)


def _bias(law: Chinchilla, x: Columns, loss: Array, degree: int, window: float) -> str:
    budgets, sizes = vertices(
        x["flops"], x["params"], loss, np.ones((1, len(loss))), degree=degree, window=window
    )
    a, b = power_line(budgets, sizes)[0]
    return f"{(1e24 / 6 / (a * 1e24**b)) / law.optimal_tokens(1e24) - 1:+.1%}"


def curves() -> Section:
    table = pd.read_csv(DATA / "lr_schedule_curves/curves.csv")
    fitted = ["cosine_24000", "constant_24000", "wsdcon_9"]

    def columns(curve: pd.DataFrame) -> dict[str, Array]:
        return {"steps": curve.step.to_numpy(float), "learning_rate": curve.lr.to_numpy(float)}

    def scores(law: MultiPower, size: str) -> list[str]:
        found = []
        for schedule, curve in table[table.model_size == size].groupby("schedule"):
            if schedule not in fitted:
                error = curve.loss.to_numpy() - law.predict(columns(curve))
                spread = curve.loss.to_numpy() - curve.loss.mean()
                found.append((1 - (error**2).sum() / (spread**2).sum(), np.abs(error).mean()))
        r_squared, error = np.mean(found, axis=0)
        return [f"{r_squared:.4f}", f"{error:.5f}"]

    def rows() -> Iterator[Sequence[Any]]:
        for size, printed in (("25M", ["0.9988", "0.00376"]), ("100M", ["0.9983", "0.00435"])):
            runs = table[table.model_size == size]
            chosen = pd.concat([runs[runs.schedule == name] for name in fitted])
            own = _point("multi-power", columns(chosen), chosen.loss.to_numpy(), LossName.huber)
            theirs = MultiPower(**published_law(f"multi-power-{size.lower()}").values)
            yield [size, *printed, *scores(theirs, size), *scores(own, size)]

    header = ["model", "printed R²", "printed MAE", "their constants here, R²", "MAE", "our fit, R²", "MAE"]
    return "Six unseen learning-rate schedules, Luo et al. 2025 (means over schedules)", header, rows()


def translation() -> Section:
    table = pd.read_csv(DATA / "nmt_data_curves/curves.csv")

    def rows() -> Iterator[Sequence[Any]]:
        for architecture, curve in table.groupby("architecture"):
            size, loss = curve.training_examples.to_numpy(float), curve.loss.to_numpy()
            kept = curve.in_fit_split.to_numpy() == 1
            cells = []
            for name in ("power-floor:tokens", "broken-power"):
                law = _point(name, {"tokens": size[kept]}, loss[kept])
                cells.append(f"{law.predict({'tokens': size[~kept]})[0] / loss[~kept][0] - 1:+.1%}")
            yield [architecture, *cells]

    return (
        "Error at the largest data set, translation curves of Bansal et al. (fitted to all smaller ones)",
        ["architecture", "power law with floor", "broken power law"],
        rows(),
    )


def routed() -> Section:
    last = pd.read_csv(DATA / "routed_lm/curves.csv").sort_values("step").groupby("run").tail(1)
    dense = last.query("router_type == 'Dense' and flop_increase == 1")

    def rows() -> Iterator[Sequence[Any]]:
        for router in ("S-Base", "RL-R", "Hash"):
            alike = "experts_per_token == 1 and routing_frequency == 0.5 and seed == 42"
            runs = pd.concat([last[last.router_type == router].query(alike), dense])
            x = {name: runs[name].to_numpy(float) for name in Clark.inputs}
            own = _point("clark", x, runs.loss_validation.to_numpy())
            theirs = published_law(f"clark-{router.lower()}").values
            yield [router, *(f"{theirs[name]:.4g} / {getattr(own, name):.4g}" for name in theirs)]

    return (
        "Routed law, Clark et al. 2022: published (with 1.3B models) / ours (up to 370M)",
        ["router", "a", "b", "c", "d", "E_start", "E_max"],
        rows(),
    )


def repeated() -> Section:
    runs = pd.read_csv(DATA / "repeated_data/runs.csv").query("in_published_fit == 1")
    x = {name: runs[name].to_numpy(float) for name in RepeatedData.inputs}
    loss = runs.loss.to_numpy()
    theirs = RepeatedData(**published_law("muennighoff").values)
    pins = {name: getattr(theirs, name) for name in ("E", "A", "B", "alpha", "beta")}

    def rows() -> Iterator[Sequence[Any]]:
        residual = np.log(theirs.predict(x) / loss)
        value = row_loss(LossName.huber, DELTA).pieces(residual).value.sum()
        yield ["published", f"{theirs.R_data:.4g}", f"{theirs.R_params:.4g}", f"{value:.7f}"]
        fit = fit_law(RepeatedData, x, loss, options=FitOptions(pins=pins, diagnose=False))
        cells = []
        for name in ("R_data", "R_params"):
            interval = fit.query(attrgetter(name))
            cells.append(f"{interval.value:.4g} ({interval.low:.3g} to {interval.high:.3g})")
        yield ["ours, 90 % intervals", *cells, f"{fit.objective['value']:.7f}"]

    return (
        "Repeated data, Muennighoff et al. 2023, 182 runs",
        ["", "R_data", "R_params", "sum of Huber losses"],
        rows(),
    )


def _fit(name: str, x: Columns, loss: Array, groups: Array | None) -> Fit:
    law = law_named(name)
    needed = getattr(law, "required", law.inputs)
    options = FitOptions(draws=1000, diagnose=False)
    return fit_law(law, {column: x[column] for column in needed}, loss, groups=groups, options=options)


def _point(name: str, x: Columns, y: Array, loss: LossName = LossName.least_squares) -> Any:
    law = law_named(name)
    data = Data({column: x[column] for column in law.inputs}, y, np.ones(len(y)))
    return with_values(law, solve(law, data, row_loss(loss, DELTA), {}).raw)


if __name__ == "__main__":
    main()
