"""What no count of tensors sees: context, workspaces, collective buffers, rounding and fragmentation.

It is one line of its own with its own error: calibrated by two local steps of different size, or assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

OVERHEAD_RULE = (
    "context, workspaces, collective buffers and fragmentation: a constant and a share of the peak"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """fixed_bytes + fraction × peak, each known to ± its error."""

    fixed_bytes: int
    fraction: float
    error_bytes: int
    """Half width of the interval of the constant."""
    error_fraction: float
    """Half width of the interval of the share."""
    calibrated: bool
    origin: str
    """Where the numbers are from: a device and version, or a source."""

    def bytes(self, peak_bytes: int) -> int:
        return round(self.fixed_bytes + self.fraction * peak_bytes)

    def error(self, peak_bytes: int) -> int:
        return round(self.error_bytes + self.error_fraction * peak_bytes)


# Flat context of gpu_poor (650 MB) and the fragmentation factor of Megatron-LM's theoretical memory report (1.05).
UNCALIBRATED = Overhead(
    fixed_bytes=650_000_000,
    fraction=0.05,
    error_bytes=650_000_000,
    error_fraction=0.05,
    calibrated=False,
    origin="assumed: 650 MB of context and 5 % of fragmentation, as gpu_poor and Megatron-LM assume",
)
