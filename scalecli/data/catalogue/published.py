"""Published constants of a law, and the simple forms that predict by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from scalecli.errors import DataError

Quantity = Literal["", "optimum", "critical"]
Definition = Literal["", "hyperbola", "overhead"]
Workload = Literal["language", "fine-tuning", "video-diffusion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLaw:
    """Constants of one law as published; laws.toml says what each field means.

    `predict` evaluates the forms that need no law of the fitters (FORMS); of the others, `values` are the fields of
    the law class that `law` names.
    """

    name: str
    law: str
    output: str
    unit: str
    values: Mapping[str, float]
    source: str
    where: str
    setup: str
    verified: bool
    exponents: Mapping[str, float] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    factor: float = 1.0
    params: Literal["", "total", "non-embedding", "active"] = ""
    valid: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    preset: str = ""
    moves: str = ""
    quantity: Quantity = ""
    definition: Definition = ""
    workload: Workload = "language"
    doubt: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that `predict` reads; empty where the form is a law of the fitters or has no formula."""
        if self.law not in FORMS:
            return ()
        return tuple(self.exponents or self.scale)

    def predict(self, columns: Mapping[str, float]) -> float:
        """The output in its unit, from `inputs` in canonical units. `DataError` for a form that is not in FORMS."""
        if self.law not in FORMS:
            raise DataError(
                f"{self.name} is no closed rule but constants of {self.law}", hint="scalecli laws show"
            )
        return FORMS[self.law].value(self, columns)

    def outside(self, columns: Mapping[str, float]) -> list[str]:
        """The measured ranges that the columns leave, in words."""
        return [
            f"{name} {low:.3g} to {high:.3g}"
            for name, (low, high) in self.valid.items()
            if name in columns and not low <= columns[name] <= high
        ]

    @property
    def formula(self) -> str:
        """The rule as text; empty where the form is a law of the fitters or has no formula."""
        return f"{self.output} = {FORMS[self.law].text(self)}" if self.law in FORMS else ""

    @property
    def validity(self) -> str:
        """Set-up and measured ranges in one line."""
        ranges = [f"{name} {low:g} to {high:g}" for name, (low, high) in self.valid.items()]
        return "; ".join(filter(None, [self.setup, *ranges, self.doubt]))

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "formula": self.formula, "validity": self.validity}


@dataclass(frozen=True, slots=True)
class Form:
    """A formula of few constants: its value at columns, and how it is written."""

    value: Callable[[PublishedLaw, Mapping[str, float]], float]
    text: Callable[[PublishedLaw], str]


def _power_product(law: PublishedLaw, columns: Mapping[str, float]) -> float:
    powers = ((columns[name] / law.scale.get(name, 1.0)) ** power for name, power in law.exponents.items())
    return float(law.factor * law.values["coefficient"] * math.prod(powers))


def _product_text(law: PublishedLaw) -> str:
    def term(name: str, power: float) -> str:
        scale = law.scale.get(name)
        return f"{name}^{power:g}" if scale is None else f"({name} / {scale:g})^{power:g}"

    factors = [f"{value:g}" for value in (law.factor, law.values["coefficient"]) if value != 1]
    return " × ".join([*factors, *(term(*item) for item in law.exponents.items())])


def _scale_power(law: PublishedLaw, columns: Mapping[str, float]) -> float:
    ((name, scale),) = law.scale.items()
    return float((scale / columns[name]) ** law.values["exponent"])


def _scale_text(law: PublishedLaw) -> str:
    ((name, scale),) = law.scale.items()
    return f"({scale:g} / {name})^{law.values['exponent']:g}"


def _log_linear(law: PublishedLaw, columns: Mapping[str, float]) -> float:
    (name,) = law.exponents
    return law.values["intercept"] + law.values["slope"] * math.log(columns[name])


def _line_text(law: PublishedLaw) -> str:
    (name,) = law.exponents
    sign, slope = "-" if law.values["slope"] < 0 else "+", abs(law.values["slope"])
    return f"{law.values['intercept']:g} {sign} {slope:g} ln {name}"


FORMS = {
    "power-product": Form(_power_product, _product_text),
    "scale-power": Form(_scale_power, _scale_text),
    "log-linear": Form(_log_linear, _line_text),
}
