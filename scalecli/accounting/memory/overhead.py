"""What no count of tensors sees: context, workspaces, collective buffers, rounding and fragmentation.

It is one line of its own with its own error: calibrated by comparing local steps with their predictions, or assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalecli.errors import PlanError

OVERHEAD_RULE = (
    "context, workspaces, collective buffers and fragmentation: a constant and a share of the peak"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One real training step against its prediction [bytes]."""

    device: str
    version: str
    """Of the library that allocated."""
    predicted_bytes: int
    """Peak by the closed forms."""
    allocated_bytes: int
    reserved_bytes: int
    used_bytes: int
    """What the device had given away at the peak, context included."""

    @property
    def allocated_error(self) -> float:
        """Relative error of the closed forms."""
        return self.predicted_bytes / self.allocated_bytes - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """fixed_bytes + fraction × peak, known to ± error_bytes and ± error_fraction × peak."""

    fixed_bytes: int
    fraction: float
    error_bytes: int
    error_fraction: float
    calibrated: bool
    origin: str
    """Where the numbers are from: a device and version, or a source."""

    def bytes(self, peak_bytes: int) -> int:
        """What a device needs beyond a peak of tensors."""
        return round(self.fixed_bytes + self.fraction * peak_bytes)

    def error(self, peak_bytes: int) -> int:
        """Half width of its interval."""
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


def fit_overhead(comparisons: Sequence[Comparison]) -> Overhead:
    """The line through used minus predicted bytes over predicted bytes; its error is the largest residual.

    Two comparisons determine it without saying how good it is: the error is then the whole share of the peak.
    Raises PlanError for comparisons of one size or of several devices.
    """
    origins = {(c.device, c.version) for c in comparisons}
    sizes = [c.predicted_bytes for c in comparisons]
    if len(origins) != 1 or max(sizes) == min(sizes):
        raise PlanError(
            f"comparisons of {len(origins)} devices or versions and {len(set(sizes))} sizes calibrate nothing",
            hint="compare at least two sizes on one device: scalecli memory --calibrate",
        )
    extra = [c.used_bytes - c.predicted_bytes for c in comparisons]
    size_mean, extra_mean = sum(sizes) / len(sizes), sum(extra) / len(extra)
    spread = sum((size - size_mean) ** 2 for size in sizes)
    slope = sum((s - size_mean) * (x - extra_mean) for s, x in zip(sizes, extra, strict=True)) / spread
    fixed = extra_mean - slope * size_mean
    residual = max(abs(x - fixed - slope * s) for s, x in zip(sizes, extra, strict=True))
    ((device, version),) = origins
    return Overhead(
        fixed_bytes=round(fixed),
        fraction=slope,
        error_bytes=round(residual),
        error_fraction=abs(slope) if len(sizes) == 2 else 0.0,
        calibrated=True,
        origin=f"{len(sizes)} steps on {device}, torch {version}",
    )
