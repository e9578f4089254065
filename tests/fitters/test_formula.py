"""The user's own law: reading it, its exact derivatives, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.errors import DataError
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.formula import formula_law
from scalecli.fitters.law import parameters, values, with_values
from scalecli.fitters.laws.chinchilla import Chinchilla

COLUMNS = ("params", "tokens", "batch_tokens", "flops", "loss")
CHINCHILLA = "E + A*params**-alpha + B*tokens**-beta; E in [0, 5]; alpha in [0, 2]"


def _rows(count: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: np.exp(rng.uniform(np.log(1e3), np.log(1e6), count)) for name in COLUMNS}


def test_a_formula_is_the_same_law_as_the_class_written_by_hand() -> None:
    truth = {"E": 1.7, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28}
    law, x = formula_law(CHINCHILLA, columns=COLUMNS), _rows()
    ours, theirs = law(**truth), Chinchilla(**truth)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-14)
    order = [list(parameters(Chinchilla)).index(name) for name in parameters(law)]
    np.testing.assert_allclose(ours.gradient(x), theirs.gradient(x)[:, order], rtol=1e-13)
    assert law.terms == Chinchilla.terms
    assert (law.inputs, law.output, law.formula) == (("params", "tokens"), "loss", CHINCHILLA)


@pytest.mark.parametrize(
    "text",
    [
        "E + A/params**a",
        "(A*params**-a + B*tokens**-b)**g",
        "E + exp(c - a*log(params)) + sqrt(B/tokens)",
        "A*params**-a*batch_tokens**c / (1 + batch_tokens/K)",
        "E - A*log(params) + 2**-a",
        "-(-E) + +A*params**(-a*(1 + b*log(tokens)/100))",
    ],
)
def test_gradients_are_exact(text: str) -> None:
    law, x = formula_law(text, columns=COLUMNS), _rows()
    at = np.random.default_rng(1).uniform(0.2, 1.2, len(parameters(law)))
    step = np.finfo(float).eps ** (1 / 3)
    gradient = with_values(law, at).gradient(x)
    for i, value in enumerate(at):
        moved = [at.copy(), at.copy()]
        moved[0][i], moved[1][i] = value * (1 + step), value * (1 - step)
        high, low = (with_values(law, vector).predict(x) for vector in moved)
        numeric = (high - low) / (2 * step * value)
        np.testing.assert_allclose(gradient[:, i], numeric, rtol=1e-6, atol=1e-8)


def test_a_bundle_of_draws_broadcasts_even_where_no_parameter_is_left() -> None:
    law, x = formula_law("c + d*params", columns=COLUMNS), _rows(7)
    bundle = with_values(law, np.arange(1.0, 9.0).reshape(4, 2))
    assert bundle.predict(x).shape == (4, 7)
    assert bundle.gradient(x).shape == (4, 7, 2)
    np.testing.assert_array_equal(values(bundle), np.arange(1.0, 9.0).reshape(4, 2))


@pytest.mark.parametrize(
    ("text", "terms", "linear"),
    [
        ("E + A*params**-a + B*tokens**-b", 3, ("E", "A", "B")),
        ("E + A/params**a", 2, ("E", "A")),
        ("A*params**-a*batch_tokens**c", 1, ("A",)),
        ("E + A*params**-A", 0, ("E",)),
        ("E + A*params**-a; A in [-5, 5]", 0, ("E", "A")),
        ("2 + A*params**-a", 0, ("A",)),
        ("(A*params**-a + E)**g", 0, ()),
        ("A*B*params**-a", 0, ("A",)),
    ],
)
def test_structure_is_found_for_the_solver(text: str, terms: int, linear: tuple[str, ...]) -> None:
    law = formula_law(text, columns=COLUMNS)
    assert len(getattr(law, "terms", ())) == terms
    assert getattr(law, "linear", ()) == linear


def test_a_formula_may_name_the_column_it_predicts() -> None:
    law = formula_law("flops = k * params**a * tokens**b", columns=COLUMNS)
    assert (law.output, law.inputs) == ("flops", ("params", "tokens"))


def test_bounds_become_the_parameters_own() -> None:
    law = formula_law("E + A*params**-a; E in [0, 5]; a in [-1, 2]; A in [1e-3, 1e9]", columns=COLUMNS)
    found = parameters(law)
    assert (found["a"].low, found["a"].high, found["a"].log) == (-1.0, 2.0, False)
    assert found["E"].log
    assert 0 < found["E"].low < 1e-12
    assert found["E"].high == 5.0
    assert (found["A"].low, found["A"].high) == (1e-3, 1e9)


@pytest.mark.parametrize(
    ("text", "character", "says"),
    [
        ("", 1, "cannot be read"),
        ("E + A*parms**-a", 7, "params is"),
        ("E + A*params^-a", 13, r"write \*\*"),
        ("E +  __import__('os').system('x')", 6, "functions are"),
        ("E + params.real", 5, "only numbers"),
        ("E + A*params**-a; a in (0, 2)", 18, "bounds are written"),
        ("E + A*params**-a; z in [0, 1]", 19, "does not occur"),
        ("E*params; E in [1, 0]", 17, "finite and rise"),
        ("E*params; E in [0, 1e999]", 17, "finite and rise"),
        ("E*params; E in [0, 1]; E in [0, 2]", 24, "already"),
        ("params*1e999*E", 8, "too large"),
        ("1" + "0" * 400 + "*params*E", 1, "too large"),
        ("a if params else b", 1, "only numbers"),
        ("E*params + True", 12, "only numbers"),
        ("E*params + predict", 12, "cannot be called"),
        ("E + A", 1, "uses no column"),
        ("2*params", 1, "no parameter"),
        ("α*params + (β", 12, "cannot be read"),
        ("α*params + β[0]", 12, "only numbers"),
        ("E*params\x00", 1, "not text"),
        ("+" * 100 + "E*params", 61, "nested deeper"),
        ("E*params" + "+E" * 1000, 1, "characters"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_position(text: str, character: int, says: str) -> None:
    with pytest.raises(DataError, match=says) as refused:
        formula_law(text, columns=COLUMNS)
    if says != "characters":
        assert f"character {character} " in refused.value.message
    assert refused.value.hint or says == "characters"


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        (CHINCHILLA, {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1200.0, "beta": 0.31}),
        (
            "E + exp(c - a*log(params)) + k/tokens**b; c in [-20, 40]",
            {"E": 1.5, "c": 6.0, "a": 0.34, "k": 1e3, "b": 0.3},
        ),
        (
            "E - k*log(params) + B*tokens**-b; k in [0, 2]; E in [0, 20]",
            {"E": 4.0, "k": 0.08, "B": 500.0, "b": 0.28},
        ),
        (
            "E + A*params**(-a*(1 + b*log(tokens)/100)); b in [-2, 2]",
            {"E": 1.5, "A": 400.0, "a": 0.3, "b": 0.4},
        ),
    ],
)
def test_a_fit_recovers_a_formulas_parameters(text: str, truth: dict[str, float]) -> None:
    random = np.random.default_rng(3)
    law = formula_law(text, columns=COLUMNS)
    x = {"params": np.exp(random.uniform(16, 23, 80)), "tokens": np.exp(random.uniform(20, 27, 80))}
    fit = fit_law(law, x, law(**truth).predict(x), options=FitOptions(draws=20, diagnose=False))
    for name, value in truth.items():
        assert getattr(fit.law, name) == pytest.approx(value, rel=1e-4)
    again = Fit.from_document(fit.document(draws=True))
    np.testing.assert_allclose(again.law.predict(x), fit.law.predict(x), rtol=1e-12)
    assert type(again.law).formula == text


@given(
    st.text(alphabet="EAaparamstokens0123456789.+-*/()[]^; in,=logexpqrt_'\"λ\t\n{}:@<>!%&|~", max_size=60)
)
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_law_or_a_typed_error(text: str) -> None:
    try:
        law = formula_law(text, columns=COLUMNS)
    except DataError:
        return
    x = _rows(3)
    one = with_values(law, np.full(len(dataclasses.fields(law)), 0.5))
    assert one.predict(x).shape == (3,)
    assert one.gradient(x).shape == (3, len(dataclasses.fields(law)))
