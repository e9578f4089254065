"""The engine of a sweep as it is written down: options of the command line, or `[engine]` of a TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.engine import Capacity, Engine
from scalecli.probes.engines.local import LocalEngine
from scalecli.probes.engines.process import Sharding

if TYPE_CHECKING:
    from scalecli.probes.engines.ray import RayEngine

ENGINES = ("local", "ray", "slurm")
Shared = TypeVar("Shared", "LocalEngine", "RayEngine")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which engine, and what a probe gets of it.

    `slots` is how many units train at a time (0: as many as there are places), `sharding` how a probe lies on several
    devices, `probes_per_device` a number or "auto", measured. `address` is Ray's, `slurm` are options of sbatch.
    """

    name: str = "local"
    device: str = "auto"
    slots: int = 0
    devices_per_probe: int = 1
    sharding: Sharding = "ddp"
    probes_per_device: str = "1"
    address: str = "auto"
    slurm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ProbeError(f"there is no engine {self.name!r}", hint=f"one of {', '.join(ENGINES)}")
        if self.slurm and self.name != "slurm":
            raise ProbeError(
                f"options of sbatch mean nothing to the {self.name} engine", hint="--engine slurm"
            )
        if self.address != "auto" and self.name != "ray":
            raise ProbeError(f"the {self.name} engine has no address", hint="--engine ray")
        if self.sharding not in get_args(Sharding):
            raise ProbeError(
                f"there is no sharding {self.sharding!r}", hint=f"one of {', '.join(get_args(Sharding))}"
            )
        if self.slots < 0 or self.devices_per_probe < 1:
            raise ProbeError(
                f"{self.slots} slots with {self.devices_per_probe} devices a probe train nothing",
                hint="at least 1 of each",
            )
        if self.probes_per_device != "auto" and not (
            self.probes_per_device.isdecimal() and int(self.probes_per_device)
        ):
            raise ProbeError(
                f"{self.probes_per_device!r} probes on a device is neither a number nor auto",
                hint="--probes-per-device auto",
            )
        if self.devices_per_probe > 1 and self.probes_per_device != "1":
            raise ProbeError(
                f"a probe spread over {self.devices_per_probe} devices cannot share them",
                hint="--devices-per-probe or --probes-per-device, not both",
            )

    def capacity(self) -> Capacity:
        """What the engine trains on, with one probe on a device."""
        return replace(self, probes_per_device="1").engine([]).capacity()

    def engine(self, configs: Sequence[ProbeConfig]) -> Engine:
        """The engine, with as many probes on a device as these runs were measured to gain from if that is wished.

        Raises:
            ProbeError: the engine cannot do what is asked.
        """
        common: dict[str, Any] = {
            "device": self.device,
            "devices": self.devices_per_probe,
            "sharding": self.sharding,
        }
        slots = self.slots or None
        if self.name == "slurm":
            if self.probes_per_device != "1":
                raise ProbeError("Slurm gives whole GPUs", hint="--probes-per-device 1, or --engine ray")
            from scalecli.probes.engines.slurm import SlurmEngine

            return SlurmEngine(
                slots=slots, options={name: str(value) for name, value in self.slurm.items()}, **common
            )
        if self.name == "ray":
            from scalecli.probes.engines.ray import RayEngine

            return self._shared(RayEngine(address=self.address, slots=slots, **common), configs)
        return self._shared(LocalEngine(slots=slots, **common), configs)

    def _shared(self, engine: Shared, configs: Sequence[ProbeConfig]) -> Shared:
        """The engine with so many probes on a device: by default one, a CPU thread being a device too."""
        if self.probes_per_device != "auto":
            return replace(engine, share=int(self.probes_per_device))
        capacity = engine.capacity()
        if capacity.device_type == "cpu":
            return engine
        from scalecli.probes.engines.share import measured_share

        return replace(engine, share=measured_share(capacity.units(configs), capacity.device_type))
