"""Accelerators: what a device has, and how a user describes one of their own."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from scalecli.data.catalogue.names import close_names
from scalecli.errors import DataError


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


def user_accelerators(path: Path) -> dict[str, Accelerator]:
    """The accelerators of a TOML file with the catalogue's keys. `DataError` names file, entry and key."""
    return {name: _user_accelerator(name, entry, path) for name, entry in _user_entries(path).items()}


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
            raise refuse(f"there is no key {key!r}; {close_names(key, dict.fromkeys(known))}")
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
