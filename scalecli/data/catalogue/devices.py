"""Accelerators: what a device has, and how a user describes one of their own."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from scalecli.data.catalogue.names import close_names
from scalecli.data.state import state_folder
from scalecli.errors import DataError


@dataclass(frozen=True, slots=True)
class Tier:
    """Links that join `devices` devices, and what one of them can send over them [bytes/s, one direction]."""

    name: str
    devices: float
    bandwidth: float


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
    architecture: str | None = None
    multiprocessors: int | None = None
    memory_bandwidth: float | None = None
    package_bandwidth: float | None = None
    devices_per_package: int = 1
    link_bandwidth: float | None = None
    devices_per_node: int = 1
    network_bandwidth: float | None = None
    devices_per_island: int | None = None
    island_bandwidth: float | None = None
    power_watts: float | None = None
    price_per_hour: float | None = None
    kernel_efficiency: float | None = None
    launch_seconds: float | None = None
    verified: bool = True

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Links from the nearest to the farthest; a tier whose bandwidth is not known is left out."""
        network = math.inf if self.devices_per_island is None else self.devices_per_island
        known = (
            ("package", self.devices_per_package, self.package_bandwidth),
            ("node", self.devices_per_node, self.link_bandwidth),
            ("network", network, self.network_bandwidth),
            ("island", math.inf, self.island_bandwidth if network < math.inf else None),
        )
        return tuple(Tier(name, size, speed) for name, size, speed in known if speed is not None and size > 1)


def user_accelerators(path: Path) -> dict[str, Accelerator]:
    """The accelerators of a TOML file with the catalogue's keys. `DataError` names file, entry and key."""
    return {name: _user_accelerator(name, entry, path) for name, entry in _user_entries(path).items()}


def measured_file(name: str) -> Path:
    """Where `probe device` keeps what it measured under that name. Raises DataError for a name that is no file's."""
    if not name or name != Path(name).name or name.startswith("."):
        raise DataError(f"{name!r} cannot be the name of a device", hint="letters, digits and hyphens")
    return state_folder() / "devices" / f"{name}.toml"


def measured_accelerators() -> dict[str, Accelerator]:
    """What `probe device` measured on this machine."""
    found: dict[str, Accelerator] = {}
    for path in sorted((state_folder() / "devices").glob("*.toml")):
        found |= user_accelerators(path)
    return found


def _user_entries(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not TOML: {error}") from None


_NEEDED = ("memory_bytes", "peak_flops")
_TEXTS = ("vendor", "source", "where", "architecture")


def _user_accelerator(name: str, entry: Any, path: Path) -> Accelerator:
    def refuse(fact: str) -> DataError:
        return DataError(
            f"{path}: accelerator {name}: {fact}",
            hint="the keys are those of scalecli/data/catalogue/accelerators.toml",
        )

    if not isinstance(entry, dict):
        raise refuse("is no table")
    known = [f.name for f in fields(Accelerator) if f.name not in ("name", "verified")]
    for key in entry:
        if key not in known:
            raise refuse(f"there is no key {key!r}; {close_names(key, dict.fromkeys(known))}")
    for key in _NEEDED:
        if key not in entry:
            raise refuse(f"needs {key}")
    peaks = entry["peak_flops"]
    if not isinstance(peaks, dict) or not peaks:
        raise refuse("peak_flops is a table of FLOP/s by number format, such as { bf16 = 1e14 }")
    for key in _TEXTS:
        if not isinstance(entry.get(key, ""), str):
            raise refuse(f"{key} is {entry[key]!r}, not a text")
    others = ("aliases", "peak_flops", *_TEXTS)
    numbers = {key: value for key, value in entry.items() if key not in others} | {
        f"peak_flops.{k}": v for k, v in peaks.items()
    }
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise refuse(f"{key} is {value!r}, not a positive number")
    if entry.get("kernel_efficiency", 1.0) > 1:
        raise refuse(f"kernel_efficiency is {entry['kernel_efficiency']!r}; it is a share of the peak")
    defaults = {"vendor": "", "source": "you", "where": str(path)}
    return Accelerator(name=name, **{**defaults, **entry, "aliases": tuple(entry.get("aliases", ()))})
