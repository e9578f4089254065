"""Expressions over named quantities, with exact derivatives: what a user's own formula becomes.

Seven nodes are enough: subtraction is adding -1 times, division multiplying by a power of -1, a square root
the power 1/2. `add`, `multiply` and `power` drop what vanishes (0 + u, 1 u, u^1), so that derivatives stay
small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, Union, assert_never

import numpy as np

from scalecli.fitters.law import Array

Expression: TypeAlias = Union["Number", "Name", "Sum", "Product", "Power", "Log", "Exp"]


@dataclass(frozen=True, slots=True)
class Number:
    number: float


@dataclass(frozen=True, slots=True)
class Name:
    name: str


@dataclass(frozen=True, slots=True)
class Sum:
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Product:
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Power:
    base: Expression
    exponent: Expression


@dataclass(frozen=True, slots=True)
class Log:
    argument: Expression


@dataclass(frozen=True, slots=True)
class Exp:
    argument: Expression


ZERO, ONE, MINUS_ONE = Number(0.0), Number(1.0), Number(-1.0)


def add(left: Expression, right: Expression) -> Expression:
    if left == ZERO:
        return right
    if right == ZERO:
        return left
    return Sum(left, right)


def multiply(left: Expression, right: Expression) -> Expression:
    if ZERO in (left, right):
        return ZERO
    if left == ONE:
        return right
    if right == ONE:
        return left
    return Product(left, right)


def power(base: Expression, exponent: Expression) -> Expression:
    if exponent == ZERO:
        return ONE
    if exponent == ONE:
        return base
    return Power(base, exponent)


def value(expression: Expression, scope: Mapping[str, Any]) -> Array:
    """What the expression comes to when its names mean these floats or arrays (they broadcast)."""
    match expression:
        case Number(number):
            return np.asarray(number)
        case Name(name):
            return np.asarray(scope[name], dtype=float)
        case Sum(left, right):
            return value(left, scope) + value(right, scope)
        case Product(left, right):
            return value(left, scope) * value(right, scope)
        case Power(base, exponent):
            return np.asarray(value(base, scope) ** value(exponent, scope))
        case Log(argument):
            return np.asarray(np.log(value(argument, scope)))
        case Exp(argument):
            return np.asarray(np.exp(value(argument, scope)))
        case _:
            assert_never(expression)


def derivative(expression: Expression, by: str) -> Expression:
    """The exact derivative by the name `by`."""
    match expression:
        case Number():
            return ZERO
        case Name(name):
            return ONE if name == by else ZERO
        case Sum(left, right):
            return add(derivative(left, by), derivative(right, by))
        case Product(left, right):
            return add(multiply(derivative(left, by), right), multiply(left, derivative(right, by)))
        case Power(base, exponent):
            slope = multiply(exponent, power(base, add(exponent, MINUS_ONE)))
            growth = multiply(Log(base), expression)
            return add(multiply(slope, derivative(base, by)), multiply(growth, derivative(exponent, by)))
        case Log(argument):
            return multiply(power(argument, MINUS_ONE), derivative(argument, by))
        case Exp(argument):
            return multiply(expression, derivative(argument, by))
        case _:
            assert_never(expression)


def names(expression: Expression) -> frozenset[str]:
    """Every name that occurs."""
    match expression:
        case Number():
            return frozenset()
        case Name(name):
            return frozenset({name})
        case Sum(left, right) | Product(left, right) | Power(left, right):
            return names(left) | names(right)
        case Log(argument) | Exp(argument):
            return names(argument)
        case _:
            assert_never(expression)


def exponents(expression: Expression) -> frozenset[str]:
    """The names that occur in the exponent of a power or inside `exp`."""
    match expression:
        case Number() | Name():
            return frozenset()
        case Sum(left, right) | Product(left, right):
            return exponents(left) | exponents(right)
        case Power(base, exponent):
            return exponents(base) | names(exponent)
        case Log(argument):
            return exponents(argument)
        case Exp(argument):
            return names(argument)
        case _:
            assert_never(expression)


def linear_names(expression: Expression, candidates: tuple[str, ...]) -> tuple[str, ...]:
    """Names in which the expression is jointly linear, up to a constant, taken in order."""
    chosen: tuple[str, ...] = ()
    for name in candidates:
        together = frozenset({*chosen, name})
        if not any(names(derivative(expression, one)) & together for one in together):
            chosen = (*chosen, name)
    return chosen
