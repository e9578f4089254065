"""A user's own law, from text: `E + A*params**-a + B*tokens**-b; E in [0, 5]; a in [0, 2]`.

Names of columns are inputs, all others are parameters. Operators are + - * / ** and parentheses, functions
`log` (natural), `exp` and `sqrt`. The text is parsed into an expression tree and never evaluated as code;
derivatives come from the tree. `column = ...` in front names the predicted column; without it that is
`loss`.

Bounds follow after semicolons, `name in [low, high]`. A parameter without bounds is taken to be positive.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, NoReturn

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.expression import (
    MINUS_ONE,
    Exp,
    Expression,
    Log,
    Name,
    Number,
    Power,
    Product,
    Sum,
    add,
    derivative,
    exponents,
    linear_names,
    multiply,
    power,
    value,
)
from scalecli.fitters.expression import names as names_in
from scalecli.fitters.law import Array, Columns, Param, Term

LONGEST = 2000
"""Characters of text that are read; no formula that a person writes comes near."""

DEEPEST = 60
"""Levels of nesting that are read, well inside the interpreter's own limits."""

NEAR_ZERO = 1e-15
"""A scale that is bounded by 0 comes no closer to it than this share of its upper bound."""

SCALE_WITHOUT_BOUNDS = Param(1e-12, 1e18, log=True)
EXPONENT_WITHOUT_BOUNDS = Param(0.0, 5.0, start=(0.02, 1.5))

_RESERVED = frozenset(
    {"name", "inputs", "output", "sources", "formula", "linear", "terms", "predict", "gradient"}
)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOUNDS = re.compile(rf"\s*(\w+)\s+in\s+\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]\s*")
_OUTPUT = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula. `parameters` in order of appearance; `inputs` are the columns it reads, sorted."""

    text: str
    output: str
    inputs: tuple[str, ...]
    parameters: Mapping[str, Param]
    expression: Expression


def formula_law(text: str, *, columns: Collection[str]) -> type[Any]:
    """A law class for this text, with all that `Law` asks for and `formula`, the text.

    `columns` are the names that are inputs. Raises `DataError` that names the position of what is wrong.

    >>> law = formula_law("E + A*params**-a; a in [0, 2]", columns=["params", "loss"])
    >>> law(E=1.0, A=8.0, a=0.5).predict({"params": np.array([4.0, 16.0])})
    array([5., 3.])
    """
    formula = parse_formula(text, columns=columns)
    slopes = [derivative(formula.expression, name) for name in formula.parameters]

    def predict(self: Any, x: Columns) -> Array:
        return _evaluate([formula.expression], _scope(self, formula, x))[..., 0]

    def gradient(self: Any, x: Columns) -> Array:
        return _evaluate(slopes, _scope(self, formula, x))

    declared: dict[str, Any] = {
        "terms": power_terms(formula),
        "linear": linear_names(formula.expression, tuple(formula.parameters)),
    }
    return make_dataclass(
        "FormulaLaw",
        [(name, Annotated[float, param]) for name, param in formula.parameters.items()],
        namespace={
            "__doc__": f"{formula.output} = {text}",
            "name": "formula",
            "inputs": formula.inputs,
            "output": formula.output,
            "sources": (),
            "formula": text,
            "predict": predict,
            "gradient": gradient,
            **{name: found for name, found in declared.items() if found},
        },
        frozen=True,
        slots=True,
        kw_only=True,
    )


def parse_formula(text: str, *, columns: Collection[str]) -> Formula:
    """The formula in `text`; `DataError` with the position of the first thing that cannot be read."""
    if len(text) > LONGEST:
        raise DataError(f"the formula has {len(text)} characters; {LONGEST} are read")
    law_text, *clauses = text.split(";")
    head = _OUTPUT.match(law_text)
    start = head.end() if head else 0
    tree = _Reader(text).read(law_text[start:], start)
    bounds = _bounds(text, clauses, len(law_text) + 1)
    found = names_in(tree)
    inputs = tuple(sorted(found & set(columns)))
    names = tuple(sorted(found - set(columns), key=lambda name: _position(law_text, name, start)))
    _check_names(text, names, inputs, bounds, columns)
    parameters = {name: _param(bounds.get(name), is_exponent=name in exponents(tree)) for name in names}
    return Formula(text, head.group(1) if head else "loss", inputs, parameters, tree)


def power_terms(formula: Formula) -> tuple[Term, ...]:
    """The addends of a sum of power-law terms, which has the fastest solver; () for any other formula."""
    found = [_term(addend, formula) for addend in _addends(formula.expression)]
    terms = tuple(term for term in found if term is not None)
    scales = {term.scale for term in terms}
    if len(scales) < len(found) or scales & exponents(formula.expression):
        return ()
    return terms


def _term(addend: Expression, formula: Formula) -> Term | None:
    """The addend as scale x powers of columns; None when it is anything else."""
    scales: list[str] = []
    powers: list[tuple[str, str, float]] = []
    for factor in _factors(addend):
        match factor:
            case Name(scale):
                scales.append(scale)
            case Power(Name(column), Product(Number(-1.0), Name(exponent))) | Power(
                Power(Name(column), Name(exponent)), Number(-1.0)
            ):
                powers.append((column, exponent, -1.0))
            case Power(Name(column), Name(exponent)):
                powers.append((column, exponent, 1.0))
            case _:
                return None
    columns = {column for column, _, _ in powers}
    known = all(scale in formula.parameters and formula.parameters[scale].log for scale in scales)
    known &= columns <= set(formula.inputs) and all(name in formula.parameters for _, name, _ in powers)
    if not known or len(scales) != 1 or len(columns) < len(powers):
        return None
    falls = {column: exponent for column, exponent, sign in powers if sign < 0}
    return Term(scales[0], falls, {column: exponent for column, exponent, sign in powers if sign > 0})


def _addends(expression: Expression) -> list[Expression]:
    if isinstance(expression, Sum):
        return _addends(expression.left) + _addends(expression.right)
    return [expression]


def _factors(expression: Expression) -> list[Expression]:
    if isinstance(expression, Product):
        return _factors(expression.left) + _factors(expression.right)
    return [expression]


def _param(bounds: tuple[float, float] | None, *, is_exponent: bool) -> Param:
    if bounds is None:
        return EXPONENT_WITHOUT_BOUNDS if is_exponent else SCALE_WITHOUT_BOUNDS
    low, high = bounds
    if is_exponent or low < 0:
        return Param(low, high)
    return Param(max(low, NEAR_ZERO * high), high, log=True)


def _scope(law: Any, formula: Formula, x: Columns) -> dict[str, Any]:
    parameters = {name: getattr(law, name) for name in formula.parameters}
    return parameters | {name: x[name] for name in formula.inputs}


def _evaluate(expressions: list[Expression], scope: dict[str, Any]) -> Array:
    """The expressions over all rows (and draws), stacked along the last axis, also where no column occurs."""
    shape = np.broadcast_shapes(*(np.shape(known) for known in scope.values()))
    # a search may leave the formula's domain (log of a negative number, say): not finite there, no warning
    with np.errstate(all="ignore"):
        return np.stack([np.broadcast_to(value(one, scope), shape) for one in expressions], axis=-1)


class _Reader:
    """Turns Python's syntax tree into an `Expression`, refusing everything that is not arithmetic."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.start = 0
        self.line = ""

    def read(self, line: str, start: int) -> Expression:
        """The expression of `line`, which begins at character `start` of the text."""
        self.line = re.sub(r"\s", " ", line).lstrip()
        self.start = start + len(line) - len(self.line)
        if not self.line.isprintable():
            self._refuse("this is not text", 0)
        try:
            tree = ast.parse(self.line, mode="eval")
        except SyntaxError as error:
            self._refuse(f"this cannot be read ({error.msg})", (error.offset or 1) - 1)
        except (RecursionError, MemoryError):
            self._refuse("this is nested too deeply", 0)
        return self._expression(tree.body, 0)

    def _expression(self, node: ast.expr, depth: int) -> Expression:
        if depth > DEEPEST:
            self._refuse_node(f"this is nested deeper than {DEEPEST} levels", node)
        match node:
            case ast.Name(id=name):
                return Name(name)
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return self._number(number, node)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return multiply(MINUS_ONE, self._expression(operand, depth + 1))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._expression(operand, depth + 1)
            case ast.BinOp(left=left, op=operator, right=right):
                pair = self._expression(left, depth + 1), self._expression(right, depth + 1)
                return self._binary(*pair, operator, node)
            case ast.Call(func=ast.Name(id="log" | "exp" | "sqrt" as function), args=[argument], keywords=[]):
                return _called(function, self._expression(argument, depth + 1))
            case ast.Call():
                self._refuse_node("functions are log(x), exp(x) and sqrt(x)", node)
            case _:
                self._refuse_node("only numbers, names and arithmetic are understood", node)

    def _number(self, number: float, node: ast.expr) -> Number:
        # compared as Python numbers: an integer may be too large for a float
        if abs(number) > sys.float_info.max:
            self._refuse_node("this number is too large", node)
        return Number(float(number))

    def _binary(
        self, left: Expression, right: Expression, operator: ast.operator, node: ast.expr
    ) -> Expression:
        match operator:
            case ast.Add():
                return add(left, right)
            case ast.Sub():
                return add(left, multiply(MINUS_ONE, right))
            case ast.Mult():
                return multiply(left, right)
            case ast.Div():
                return multiply(left, power(right, MINUS_ONE))
            case ast.Pow():
                return power(left, right)
            case ast.BitXor():
                self._refuse("^ is not a power here; write **", self.line.index("^"))
            case _:
                self._refuse_node("operators are + - * / **", node)

    def _refuse_node(self, message: str, node: ast.expr) -> NoReturn:
        # the parser counts bytes of UTF-8
        self._refuse(message, len(self.line.encode()[: node.col_offset].decode()))

    def _refuse(self, message: str, offset: int) -> NoReturn:
        _refuse(self.text, self.start + min(offset, len(self.line)), message)


def _called(function: str, argument: Expression) -> Expression:
    if function == "sqrt":
        return power(argument, Number(0.5))
    return Log(argument) if function == "log" else Exp(argument)


def _bounds(text: str, clauses: list[str], start: int) -> dict[str, tuple[float, float]]:
    """`name in [low, high]` clauses, the first of which begins at character `start`."""
    found: dict[str, tuple[float, float]] = {}
    for clause in clauses:
        match = _BOUNDS.fullmatch(clause)
        if match is None:
            _refuse(text, start, "bounds are written `name in [low, high]`")
        name, low, high = match.group(1), float(match.group(2)), float(match.group(3))
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            _refuse(text, start + match.start(2), f"the bounds of {name} must be finite and rise")
        if name in found:
            _refuse(text, start + match.start(1), f"{name} has bounds already")
        found[name] = (low, high)
        start += len(clause) + 1
    return found


def _check_names(
    text: str,
    names: tuple[str, ...],
    inputs: tuple[str, ...],
    bounds: Collection[str],
    columns: Collection[str],
) -> None:
    for name in names:
        if name in _RESERVED or name.startswith("_"):
            _refuse(text, _position(text, name), f"a parameter cannot be called {name}")
        close = difflib.get_close_matches(name, columns, n=1, cutoff=0.8) if len(name) > 3 else []
        if close and name not in bounds:
            message = f"{name} is not a column; {close[0]} is"
            _refuse(text, _position(text, name), message, hint=f"giving {name} bounds makes it a parameter")
    if not inputs:
        _refuse(text, 0, "the formula uses no column", hint=f"columns are {', '.join(sorted(columns))}")
    if not names:
        _refuse(text, 0, "the formula has no parameter to fit")
    for name in bounds:
        if name not in names:
            _refuse(text, text.rindex(name), f"{name} has bounds but does not occur as a parameter")


def _position(text: str, name: str, start: int = 0) -> int:
    """Where `name` first occurs in `text` as a whole word."""
    match = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)").search(text, start)
    return match.start() if match else start


def _refuse(text: str, position: int, message: str, *, hint: str = "") -> NoReturn:
    near = text[max(0, position - 15) : position + 15].strip()
    raise DataError(
        f"formula, character {position + 1} (near {near!r}): {message}",
        hint=hint or "for example: E + A*params**-a + B*tokens**-b; E in [0, 5]",
    )
