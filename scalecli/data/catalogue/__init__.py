"""Published laws, their sources, accelerators and optimizers: every number taken from a paper or a data sheet.

The TOML files beside this module hold the entries. Each has its source and the place in it; where sources disagree,
all of them are here.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from scalecli.errors import DataError, UnknownAccelerator

Quantity = Literal["", "optimum", "critical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A paper or data sheet; `identifier` is an arXiv number or an address."""

    key: str
    title: str
    authors: str
    year: int
    identifier: str

    @property
    def citation(self) -> str:
        return f"{self.authors} {self.year}, {self.title}, {self.identifier}"


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
    quantity: Quantity = ""
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
        return FORMS[self.law](self, columns)

    def covers(self, columns: Mapping[str, float]) -> bool:
        """Whether every given column that has a measured range lies in it."""
        spans = ((columns[name], span) for name, span in self.valid.items() if name in columns)
        return all(low <= value <= high for value, (low, high) in spans)

    @property
    def validity(self) -> str:
        """Set-up and measured ranges in one line."""
        ranges = [f"{name} {low:g} to {high:g}" for name, (low, high) in self.valid.items()]
        return "; ".join(filter(None, [self.setup, *ranges, self.doubt]))

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "validity": self.validity}


def _power_product(law: PublishedLaw, columns: Mapping[str, float]) -> float:
    powers = ((columns[name] / law.scale.get(name, 1.0)) ** power for name, power in law.exponents.items())
    return float(law.factor * law.values["coefficient"] * math.prod(powers))


def _scale_power(law: PublishedLaw, columns: Mapping[str, float]) -> float:
    ((name, scale),) = law.scale.items()
    return float((scale / columns[name]) ** law.values["exponent"])


def _log_linear(law: PublishedLaw, columns: Mapping[str, float]) -> float:
    (name,) = law.exponents
    return law.values["intercept"] + law.values["slope"] * math.log(columns[name])


FORMS: dict[str, Callable[[PublishedLaw, Mapping[str, float]], float]] = {
    "power-product": _power_product,
    "scale-power": _scale_power,
    "log-linear": _log_linear,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One device, as a framework sees it; accelerators.toml says what each field means. None: not published."""

    name: str
    vendor: str
    memory_bytes: int
    peak_flops: Mapping[str, float]
    source: str
    where: str
    aliases: tuple[str, ...] = ()
    memory_bandwidth: float | None = None
    link_bandwidth: float | None = None
    devices_per_node: int = 1
    network_bandwidth: float | None = None
    power_watts: float | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """What an optimizer keeps for every weight; optimizers.toml says what each field means."""

    name: str
    states: tuple[str, ...]
    bytes_per_param: float
    rule: str
    weight_decay: Literal["decoupled", "none"]
    source: str
    where: str


def _entries(name: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))


@cache
def sources() -> dict[str, Source]:
    """All sources by key."""
    return {key: Source(key=key, **entry) for key, entry in _entries("sources.toml").items()}


@cache
def published_laws() -> tuple[PublishedLaw, ...]:
    """All published constants, in the order of the file."""
    return tuple(_law(name, entry) for name, entry in _entries("laws.toml").items())


def published_law(name: str) -> PublishedLaw:
    """The record of this name; a `DataError` with close names otherwise."""
    known = {law.name: law for law in published_laws()}
    if name not in known:
        raise DataError(
            f"no published law is named {name!r}; {_close(name, known)}", hint="scalecli laws list"
        )
    return known[name]


def presets() -> dict[str, tuple[PublishedLaw, ...]]:
    """The verified records that a plan shows beside its own answer, by the name they are shown under."""
    shown: dict[str, tuple[PublishedLaw, ...]] = {}
    for law in published_laws():
        if law.preset:
            shown[law.preset] = (*shown.get(law.preset, ()), law)
    return shown


@cache
def optimizers() -> dict[str, Optimizer]:
    """All optimizers by name."""
    return {
        name: Optimizer(name=name, **{**entry, "states": tuple(entry["states"])})
        for name, entry in _entries("optimizers.toml").items()
    }


def optimizer(name: str) -> Optimizer:
    """The optimizer of this name; a `DataError` with close names otherwise."""
    known = optimizers()
    if name not in known:
        raise DataError(
            f"there is no optimizer {name!r}; {_close(name, known)}", hint="give --optimizer another name"
        )
    return known[name]


def accelerators(extra: Path | None = None) -> dict[str, Accelerator]:
    """All accelerators by name; those of the user's TOML file `extra` come last and win.

    The file has the same keys as the catalogue's, of which memory_bytes and peak_flops are needed. Raises
    `DataError` that names file, entry and key.
    """
    known = dict(_own_accelerators())
    if extra is not None:
        known |= {name: _user_accelerator(name, entry, extra) for name, entry in _user_entries(extra).items()}
    return known


def accelerator(name: str, extra: Path | None = None) -> Accelerator:
    """The accelerator of this name or alias, in any case. Raises `UnknownAccelerator` with close names."""
    known = accelerators(extra)
    wanted = name.strip().casefold().replace("_", "-")
    by_name = {
        alias.casefold(): device for device in known.values() for alias in (*device.aliases, device.name)
    }
    if wanted not in by_name:
        raise UnknownAccelerator(
            f"there is no accelerator {name!r}; {_close(wanted, by_name)}",
            hint="describe yours in a TOML file and give it with --accelerators",
        )
    return by_name[wanted]


@cache
def _own_accelerators() -> Mapping[str, Accelerator]:
    return {
        name: Accelerator(name=name, **{**entry, "aliases": tuple(entry["aliases"])})
        for name, entry in _entries("accelerators.toml").items()
    }


def _law(name: str, entry: dict[str, Any]) -> PublishedLaw:
    valid = {column: (float(low), float(high)) for column, (low, high) in entry.pop("valid", {}).items()}
    return PublishedLaw(name=name, valid=valid, **entry)


def _close(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"close names: {', '.join(close)}" if close else f"there are {', '.join(sorted(known))}"


def _user_entries(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not TOML: {error}") from None


_NEEDED = ("memory_bytes", "peak_flops")
_POSITIVE = (
    "memory_bytes",
    "memory_bandwidth",
    "link_bandwidth",
    "devices_per_node",
    "network_bandwidth",
    "power_watts",
    "price_per_hour",
)


def _user_accelerator(name: str, entry: Any, path: Path) -> Accelerator:
    def refuse(fact: str) -> DataError:
        return DataError(
            f"{path}: accelerator {name}: {fact}",
            hint="the keys are those of scalecli/data/catalogue/accelerators.toml",
        )

    if not isinstance(entry, dict):
        raise refuse("is no table")
    known = [f.name for f in fields(Accelerator) if f.name != "name"]
    for key in entry:
        if key not in known:
            raise refuse(f"there is no key {key!r}; {_close(key, dict.fromkeys(known))}")
    for key in _NEEDED:
        if key not in entry:
            raise refuse(f"needs {key}")
    peaks = entry["peak_flops"]
    if not isinstance(peaks, dict) or not peaks:
        raise refuse("peak_flops is a table of FLOP/s by number format, such as { bf16 = 1e14 }")
    numbers = {key: entry[key] for key in _POSITIVE if key in entry} | {
        f"peak_flops.{k}": v for k, v in peaks.items()
    }
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise refuse(f"{key} is {value!r}, not a positive number")
    defaults = {"vendor": "", "source": "you", "where": str(path)}
    return Accelerator(name=name, **{**defaults, **entry, "aliases": tuple(entry.get("aliases", ()))})
