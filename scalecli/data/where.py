"""`--where` expressions: parsed with `ast`, interpreted node by node, never `eval`ed.

An expression is a condition on columns: comparisons (also chained, and `in`), `and`, `or`, `not`, arithmetic,
numbers and quoted text. A column whose name is no identifier is written `col("eval/loss")`. Missing values
compare as NaN does: only `!=` and `not in` are true of them.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.errors import DataError

MAX_LENGTH = 2000
"""Characters of one expression; keeps the parser's recursion bounded."""
_GRAMMAR = "use comparisons, and / or / not, in, + - * / // % **, numbers and quoted text"

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}

Values = NDArray[Any]
"""Float, bool or object (text) array of shape (rows,) or ()."""


@dataclass(frozen=True, slots=True)
class Where:
    """A parsed condition; `mask` says which rows meet it."""

    text: str
    tree: ast.expr

    @property
    def names(self) -> frozenset[str]:
        """Every plain name in the condition."""
        return frozenset(node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name))

    def mask(self, columns: Mapping[str, Values], rows: int) -> NDArray[np.bool_]:
        """True where the row meets the condition, shape (rows,). `DataError` names the place of a mistake."""
        try:
            with np.errstate(all="ignore"):
                result = _Interpreter(self.text, columns).value(self.tree)
        except RecursionError:
            raise DataError(f"--where {self.text!r} is nested too deeply", hint=_GRAMMAR) from None
        if result.dtype != bool:
            raise _mistake(self.text, self.tree, "is a value, not a condition", "compare it with something")
        return np.broadcast_to(result, (rows,)).copy()


def parse_where(text: str) -> Where:
    """Parse one condition; a `DataError` with the character where it goes wrong.

    >>> parse_where("tokens > 1e9 and optimizer in ('adamw', 'muon')").mask(
    ...     {"tokens": np.array([1e8, 2e9]), "optimizer": np.array(["adamw", "adamw"], dtype=object)}, 2)
    array([False,  True])
    """
    if not text.strip():
        raise DataError("--where is empty", hint="--where \"optimizer == 'adamw'\"")
    if len(text) > MAX_LENGTH:
        raise DataError(f"--where has {len(text)} characters; at most {MAX_LENGTH} are read")
    try:
        with warnings.catch_warnings():
            # The compiler warns of things like '\d' inside text, which is the user's text and none of ours.
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        place = f" at character {error.offset}" if error.offset else " at its end"
        raise DataError(f"--where {text!r}{place}: {error.msg}", hint=_GRAMMAR) from None
    except (ValueError, RecursionError, MemoryError):
        raise DataError(f"--where {text!r} cannot be parsed", hint=_GRAMMAR) from None
    return Where(text.strip(), tree)


def _mistake(text: str, node: ast.AST, fact: str, hint: str = _GRAMMAR) -> DataError:
    piece = ast.get_source_segment(text, node) or text
    return DataError(
        f"--where {text!r} at character {getattr(node, 'col_offset', 0) + 1}: {piece} {fact}", hint=hint
    )


class _Interpreter:
    """Evaluates a syntax tree over columns. Every node type that is not named here is refused."""

    def __init__(self, text: str, columns: Mapping[str, Values]) -> None:
        self.text = text
        self.columns = columns

    def value(self, node: ast.expr) -> Values:
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name(id=name):
                return self._column(node, name)
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))], keywords=[]):
                return self._column(node, name)
            case ast.BoolOp(op=operator, values=parts):
                combine = np.logical_and if isinstance(operator, ast.And) else np.logical_or
                result = self._condition(parts[0])
                for part in parts[1:]:
                    result = combine(result, self._condition(part))
                return np.asarray(result)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return np.asarray(np.logical_not(self._condition(operand)))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return np.asarray(np.negative(self._number(operand)))
            case ast.BinOp(left=left, op=arithmetic, right=right) if type(arithmetic) in _ARITHMETIC:
                return np.asarray(_ARITHMETIC[type(arithmetic)](self._number(left), self._number(right)))
            case ast.Compare():
                return self._compare(node)
        raise _mistake(self.text, node, "is not part of the filter language")

    def _constant(self, node: ast.Constant) -> Values:
        match node.value:
            case bool() | str():
                return np.array(node.value, dtype=bool if isinstance(node.value, bool) else object)
            case int() | float():
                try:
                    return np.array(float(node.value))
                except OverflowError:
                    raise _mistake(self.text, node, "is too large for a number") from None
        raise _mistake(self.text, node, "is neither a number nor text")

    def _column(self, node: ast.expr, name: str) -> Values:
        if name in self.columns:
            return self.columns[name]
        there = ", ".join(self.columns)
        raise _mistake(
            self.text, node, f"is no column; columns there: {there}", f"for text write '{name}' in quotes"
        )

    def _condition(self, node: ast.expr) -> Values:
        result = self.value(node)
        if result.dtype != bool:
            raise _mistake(self.text, node, "is a value, not a condition", "compare it with something")
        return result

    def _number(self, node: ast.expr) -> Values:
        result = self.value(node)
        if result.dtype.kind not in "fiu":
            raise _mistake(self.text, node, "is not a number", "arithmetic needs numbers")
        return result.astype(float)

    def _compare(self, node: ast.Compare) -> Values:
        result: Values = np.array(True)
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            result = np.asarray(np.logical_and(result, self._one_comparison(left, operator, right)))
            left = right
        return result

    def _one_comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Values:
        if isinstance(operator, (ast.In, ast.NotIn)):
            member = self._member(left, right)
            return np.asarray(np.logical_not(member)) if isinstance(operator, ast.NotIn) else member
        if type(operator) not in _COMPARISONS:
            raise _mistake(self.text, left, "is compared with `is`", "use == or !=")
        a, b = self.value(left), self.value(right)
        if (a.dtype == object) != (b.dtype == object):
            raise _mistake(self.text, right, "compares text with a number", "quote text, and only text")
        if a.dtype == object and not isinstance(operator, (ast.Eq, ast.NotEq)):
            raise _mistake(self.text, right, "orders text", "text has only == , != and in")
        return np.asarray(_COMPARISONS[type(operator)](a, b), dtype=bool)

    def _member(self, left: ast.expr, right: ast.expr) -> Values:
        if not isinstance(right, (ast.Tuple, ast.List, ast.Set)):
            raise _mistake(self.text, right, "is no list", "write: optimizer in ('adamw', 'muon')")
        result: Values = np.zeros(self.value(left).shape, dtype=bool)
        for item in right.elts:
            result = np.asarray(np.logical_or(result, self._one_comparison(left, ast.Eq(), item)))
        return result


def column_values(values: Sequence[Any] | Values) -> Values:
    """A column as conditions see it: numbers as floats, booleans as they are, all else as objects (text)."""
    array = np.asarray(values)
    if array.dtype.kind in "fiu":
        return array.astype(float)
    if array.dtype.kind == "b":
        return array
    return np.asarray(array, dtype=object)
