"""What a step's time depends on besides model, layout and device: what hides, and what is sent for a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from scalecli.errors import PlanError
from scalecli.plan.step.engine import Efficiency
from scalecli.plan.step.reduction import UNCOMPRESSED, Reduction, reduction
from scalecli.units import parse_count

# One direction of PCIe 4.0 with 16 lanes, at the share that pinned copies reach.
HOST_BANDWIDTH = 25e9
# A drive has four of these lanes.
DRIVE_BANDWIDTH = HOST_BANDWIDTH / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Share of each kind of communication's time, or of the computation beside it, that hides it.

    `tensor`, `expert` and `pipeline` are shares of the communication itself: tensor-parallel collectives stand between
    the products that need each other (Pati et al., T3, 2401.16677, section 2), and so do an expert layer's; transfers
    between stages meet the other half of a micro-batch. `context` and `data` hide behind so much of the computation
    that runs beside them.
    """

    tensor: float = 0.0
    expert: float = 0.0
    pipeline: float = 0.5
    context: float = 0.8
    data: float = 0.8

    def __post_init__(self) -> None:
        for field in fields(self):
            share = getattr(self, field.name)
            if not 0 <= share <= 1:
                raise PlanError(
                    f"an overlap of {share:g} for {field.name} is no share: it lies between 0 and 1"
                )

    def with_shares(self, shares: Mapping[str, float]) -> Overlap:
        """The same with some shares given. Raises PlanError for a name that is none."""
        known = [field.name for field in fields(self)]
        for name in shares:
            if name not in known:
                raise PlanError(
                    f"nothing called {name!r} can be assumed",
                    hint=f"choose of {', '.join([*known, 'reduction', 'dispatch_width', 'host', 'drive'])}",
                )
        return replace(self, **shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """`efficiency` None takes what was measured or published for the device. `dispatch_width` is that of a token on its
    way to an expert, where it is narrower than the model's (Jin et al., BigMac, 2502.16927, section 3)."""

    efficiency: Efficiency | None = None
    overlap: Overlap = Overlap()
    reduction: Reduction = UNCOMPRESSED
    dispatch_width: int | None = None
    host: float = HOST_BANDWIDTH
    """Between one device and the host's memory, one way [bytes/s]."""
    drive: float = DRIVE_BANDWIDTH
    """Between the host's memory and one device's part of the drives [bytes/s]."""

    def __post_init__(self) -> None:
        if not self.host > 0 or not self.drive > 0:
            raise PlanError(f"a host link of {self.host:g} and drives of {self.drive:g} bytes/s move nothing")
        if self.dispatch_width is not None and self.dispatch_width < 1:
            raise PlanError(f"a dispatch width of {self.dispatch_width} sends nothing")


STANDARD = Conditions()


def assumed(pairs: Mapping[str, str]) -> Conditions:
    """`{"tensor": "0.3", "reduction": "int8", "dispatch_width": "1k", "drive": "6G"}`: shares that hide, and the rest
    by name.

    Raises PlanError for what is no name, share, width or bandwidth.
    """
    shares = dict(pairs)
    name, width = shares.pop("reduction", None), shares.pop("dispatch_width", None)
    links = {link: shares.pop(link) for link in ("host", "drive") if link in shares}
    try:
        return Conditions(
            overlap=Overlap().with_shares({key: float(value) for key, value in shares.items()}),
            reduction=UNCOMPRESSED if name is None else reduction(name),
            dispatch_width=None if width is None else round(parse_count(width)),
            host=parse_count(links["host"]) if "host" in links else HOST_BANDWIDTH,
            drive=parse_count(links["drive"]) if "drive" in links else DRIVE_BANDWIDTH,
        )
    except ValueError as error:
        raise PlanError(
            f"an assumption is no number: {error}", hint="--assume tensor=0.3,data=0.9"
        ) from error
