"""Over-training: the five-point recipe of Gadre et al. 2024."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.laws.chinchilla_tied import ChinchillaTied
from scalecli.fitters.laws.gadre import Gadre

Public = Callable[[str], pd.DataFrame]


def test_five_small_runs_predict_the_over_trained_ones(public: Public) -> None:
    """Four sizes at 20 tokens a parameter and the smallest at 320: the constants that the data's README gives for
    plain least squares on the loss, and the 16 runs with more than 20 tokens a parameter within 1 % on average."""
    runs = public("gadre_c4_small/runs.csv")
    chosen = runs[(runs.tokens_per_param == 20) | ((runs.params < 2e7) & (runs.tokens_per_param == 320))]
    assert len(chosen) == 5
    x = {name: runs[name].to_numpy(float) for name in Gadre.inputs}
    few = {name: column[chosen.index] for name, column in x.items()}
    options = FitOptions(loss="least-squares", draws=0, diagnose=False)
    law = fit_law(Gadre, few, chosen.loss_c4_val.to_numpy(), loss_std=np.full(5, 0.01), options=options).law
    published_a = law.a * 6**-law.eta  # the README's a multiplies N^-2eta, ours (6 N^2)^-eta
    np.testing.assert_allclose(
        [law.E, published_a, law.b, 2 * law.eta], [1.508, 113.7, 189.5, 0.2425], rtol=0.03
    )
    over = runs.tokens_per_param.to_numpy() > 20
    miss = np.abs(np.log(law.predict(x) / runs.loss_c4_val.to_numpy()))[over]
    assert miss.mean() < 0.01
    assert miss.max() < 0.035


def test_it_is_chinchilla_with_tied_exponents() -> None:
    law = Gadre(E=1.5, a=144.0, b=195.0, eta=0.12)
    tied = ChinchillaTied(E=1.5, A=144.0 * 6**-0.12, B=195.0 * 6**-0.12, alpha=0.24)
    x = {"params": np.array([1e7, 1e9]), "tokens": np.array([1e10, 5e9])}
    x["flops"] = 6 * x["params"] * x["tokens"]
    np.testing.assert_allclose(law.predict(x), tied.predict(x))
    flops = 1e20
    assert law.optimal_ratio() == pytest.approx(tied.optimal_tokens(flops) / tied.optimal_params(flops))
