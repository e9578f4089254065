"""The devices of a plan: one kind, or several (`a100-80g:4,v100-32g:4`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scalecli.data.catalogue import Accelerator, accelerator
from scalecli.errors import PlanError


@dataclass(frozen=True, slots=True)
class Kind:
    """So many devices of one kind."""

    accelerator: Accelerator
    count: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """All devices that train together."""

    kinds: tuple[Kind, ...]

    @property
    def count(self) -> int:
        return sum(kind.count for kind in self.kinds)

    @property
    def is_mixed(self) -> bool:
        return len(self.kinds) > 1

    @property
    def device(self) -> Accelerator:
        """The one kind, or a mean device: what time, money and energy of all together are reckoned with.

        Its peaks, power and price are means; of memory and links it has the least.
        """
        if not self.is_mixed:
            return self.kinds[0].accelerator
        devices = [kind.accelerator for kind in self.kinds]
        formats = sorted({name for device in devices for name in device.peak_flops})
        peaks = {name: self._mean([_peak(device, name) for device in devices]) for name in formats}
        return Accelerator(
            name=", ".join(f"{kind.count} × {kind.accelerator.name}" for kind in self.kinds),
            vendor=devices[0].vendor,
            memory_bytes=min(device.memory_bytes for device in devices),
            peak_flops={name: peak for name, peak in peaks.items() if peak is not None},
            source=devices[0].source,
            where="mean of several kinds",
            memory_bandwidth=least([device.memory_bandwidth for device in devices]),
            link_bandwidth=least([device.link_bandwidth for device in devices]),
            devices_per_node=min(device.devices_per_node for device in devices),
            network_bandwidth=least([device.network_bandwidth for device in devices]),
            power_watts=self._mean([device.power_watts for device in devices]),
            price_per_hour=self._mean([device.price_per_hour for device in devices]),
        )

    def _mean(self, values: Sequence[float | None]) -> float | None:
        """Over all devices of one value a kind; None where one kind has none."""
        total = 0.0
        for value, kind in zip(values, self.kinds, strict=True):
            if value is None:
                return None
            total += value * kind.count
        return total / self.count


def fleet_of(text: str, count: int, extra: Path | None = None) -> Fleet:
    """The devices that `--accelerator` and `--count` name.

    Raises UnknownAccelerator, and PlanError for counts that contradict each other.
    """
    if ":" not in text and "," not in text:
        return Fleet((Kind(accelerator(text, extra), _counted(text, count)),))
    kinds = tuple(_kind(part.strip(), extra) for part in text.split(",") if part.strip())
    if not kinds:
        raise PlanError(f"{text!r} names no devices", hint="a100-80g, or a100-80g:4,v100-32g:4")
    fleet = Fleet(kinds)
    if count not in (1, fleet.count):
        raise PlanError(
            f"{text} are {fleet.count} devices, not {count}", hint="leave out --count, the list says how many"
        )
    return fleet


def _kind(text: str, extra: Path | None) -> Kind:
    name, colon, count = text.rpartition(":")
    if not colon:
        raise PlanError(f"{text!r} does not say how many", hint="a100-80g:4,v100-32g:4")
    if not count.isdecimal():
        raise PlanError(f"{count!r} is no number of devices", hint="a100-80g:4,v100-32g:4")
    return Kind(accelerator(name, extra), _counted(name, int(count)))


def _counted(name: str, count: int) -> int:
    if count < 1:
        raise PlanError(f"{count} × {name} cannot train anything", hint="give 1 or more")
    return count


def _peak(device: Accelerator, name: str) -> float | None:
    """Devices without bf16 compute in fp16."""
    return device.peak_flops.get(name, device.peak_flops.get("fp16") if name == "bf16" else None)


def least(values: Sequence[float | None]) -> float | None:
    """The smallest of those that are known."""
    return min((value for value in values if value is not None), default=None)
