"""Ways of fine-tuning a part of the weights: what is trained, and what is added to the model for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tuning = Literal["all", "lora", "bitfit", "difffit", "ia3"]
"""What is trained. Mixture of shards: see `plan/saving_remarks.py`."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The parts that a way of tuning trains."""

    weights: bool = False
    """Every weight of the model."""
    norms: bool = False
    adapters: bool = False
    """Two low-rank matrices beside a projection (Hu et al., 2106.09685)."""
    biases: bool = False
    """A bias on every projection (BitFit, Ben Zaken et al., 2106.10199)."""
    branch_scales: bool = False
    """A factor for every column that a branch adds to the stream (DiffFit, Xie et al., 2304.06648, section 3.2)."""
    inner_scales: bool = False
    """Factors for keys, values and hidden values (IA³, Liu et al., 2205.05638, section 3.3)."""


TUNINGS: dict[Tuning, Trained] = {
    "all": Trained(weights=True, norms=True),
    "lora": Trained(adapters=True),
    "bitfit": Trained(biases=True),
    "difffit": Trained(norms=True, biases=True, branch_scales=True),
    "ia3": Trained(inner_scales=True),
}
