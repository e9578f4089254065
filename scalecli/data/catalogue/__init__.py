"""Published laws, their sources, accelerators and optimizers: every number taken from a paper or a data sheet.

The TOML files beside this module hold the entries. Each has its source and the place in it; where sources disagree,
all of them are here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from scalecli.data.catalogue.devices import Accelerator, measured_accelerators, user_accelerators
from scalecli.data.catalogue.names import close_names
from scalecli.data.catalogue.published import FORMS, PublishedLaw, Workload
from scalecli.errors import DataError, UnknownAccelerator

__all__ = [
    "FORMS",
    "Accelerator",
    "Optimizer",
    "PublishedLaw",
    "Source",
    "Workload",
    "accelerator",
    "accelerators",
    "optimizer",
    "optimizers",
    "presets",
    "published_law",
    "published_laws",
    "sources",
]


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
class Optimizer:
    """What an optimizer keeps for every weight; optimizers.toml says what each field means."""

    name: str
    states: tuple[str, ...]
    bytes_per_param: float
    rule: str
    weight_decay: Literal["decoupled", "none"]
    source: str
    where: str
    step_flops: Mapping[str, float]
    settings: Mapping[str, float] = field(default_factory=dict)
    settings_source: str = ""
    side_traffic: float = 0.0
    note: str = ""


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
            f"no published law is named {name!r}; {close_names(name, known)}", hint="scalecli laws list"
        )
    return known[name]


def presets(workload: Workload = "language") -> dict[str, tuple[PublishedLaw, ...]]:
    """The verified records that a plan shows beside its own answer, by the name they are shown under."""
    shown: dict[str, tuple[PublishedLaw, ...]] = {}
    for law in published_laws():
        if law.preset and law.workload == workload:
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
            f"there is no optimizer {name!r}; {close_names(name, known)}",
            hint="give --optimizer another name",
        )
    return known[name]


def accelerators(extra: Path | None = None) -> dict[str, Accelerator]:
    """All accelerators by name: the catalogue's, those measured here, and those of the file `extra`; later ones win.

    The file has the same keys as the catalogue's, of which memory_bytes and peak_flops are needed. Raises
    `DataError` that names file, entry and key.
    """
    known = {**_own_accelerators(), **measured_accelerators()}
    if extra is not None:
        known |= user_accelerators(extra)
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
            f"there is no accelerator {name!r}; {close_names(wanted, by_name)}",
            hint="describe yours in a TOML file for --accelerators, or measure this machine: scalecli probe device",
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
