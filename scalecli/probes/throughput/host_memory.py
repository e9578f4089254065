"""Memory of this process on a host, as Linux counts it."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

from scalecli.errors import ProbeError


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Bytes of the process at one moment: resident, and of address space."""

    resident: int
    address_space: int

    @classmethod
    def now(cls) -> HostMemory:
        status = _status()
        return cls(status["VmRSS"], status["VmSize"])

    def grown_by(self) -> int:
        """Highest resident size since the process began, beyond this moment."""
        return max(0, _status()["VmHWM"] - self.resident)

    def limit(self, more_bytes: int) -> None:
        """From here on an allocation beyond `more_bytes` more fails, as it would on a smaller machine."""
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (self.address_space + more_bytes, hard))

    def lift(self) -> None:
        """No such limit any more."""
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def available_bytes() -> int:
    """What the machine could give a new process without swapping."""
    return _kibibytes("/proc/meminfo")["MemAvailable"]


def _status() -> dict[str, int]:
    return _kibibytes("/proc/self/status")


def _kibibytes(path: str) -> dict[str, int]:
    """The lines `name: number kB` of a file of the kernel, in bytes."""
    try:
        lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise ProbeError(
            f"host memory cannot be read from {path}", hint="probe on Linux, or on a GPU"
        ) from error
    fields = (line.split() for line in lines)
    return {each[0].rstrip(":"): 1024 * int(each[1]) for each in fields if each[-1:] == ["kB"]}
