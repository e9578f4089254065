"""Every question of every law can be asked of a fit, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from scalecli.errors import DataError
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.laws import LAWS
from scalecli.fitters.laws.encoder_decoder import EncoderDecoder
from scalecli.fitters.questions import ask_points, questions_of


@pytest.fixture(scope="module")
def fit() -> Fit:
    encoder, decoder = (
        axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e7, 1e9, 5))
    )
    x = {"params_encoder": encoder, "params_decoder": decoder}
    truth = EncoderDecoder(L_inf=1.5, alpha=900.0, p_e=0.1, p_d=0.2)
    noise = np.exp(0.002 * np.random.default_rng(0).standard_normal(25))
    return fit_law(EncoderDecoder, x, truth.predict(x) * noise, options=FitOptions(draws=100, diagnose=False))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_no_part_of_the_fitting_is_a_question(law: type) -> None:
    asked = questions_of(law)
    assert not {"predict", "gradient", "estimate", "over", "flat_range", "summed", "work"} & set(asked)
    assert {name for name in dir(law) if name.startswith("optimal_")} <= set(asked)


def test_a_question_without_numbers_has_one_answer(fit: Fit) -> None:
    (answer,) = ask_points(fit, "optimal_split", [])["points"]
    assert answer["low"] <= 1 / 3 <= answer["high"]
    assert answer["extrapolation"] == 0


@pytest.mark.parametrize(
    ("question", "points", "message"),
    [
        ("optimal_params", [{"flops": 1e21}], "answers no 'optimal_params'"),
        ("optimal_split", [{"flops": 1e21}], "takes no numbers; got flops"),
        ("predict", [{}], "answers no 'predict'"),
    ],
)
def test_what_a_law_does_not_answer_is_told(fit: Fit, question: str, points: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ask_points(fit, question, points)
