"""What replicas have to send each other, and over how fast a link, when they average now and then or at every step.

A replica sends and receives 2 (r - 1)/r of its values in an all-reduce over r of them. At every step that hides behind
the backward pass; every H steps nothing hides it, unless it streams: fragments of a few layers go at different steps,
in few bits, each while the next steps train (Douillard et al., 2501.18512).
"""

from __future__ import annotations

from dataclasses import dataclass

# Backward is two thirds of a step, and gradients come layer by layer.
BACKWARD_SHARE = 2 / 3
WHOLE_BITS = 16
# Douillard et al. 2025 (2501.18512), section 3: fragments of three layers, outer gradients of four bits, one step to
# send each.
FRAGMENT_LAYERS, FRAGMENT_BITS, FRAGMENT_STEPS = 3, 4, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Averaging:
    """How replicas come together: every `steps` steps, in `fragments` parts that each hide behind `hidden_steps`."""

    name: str
    steps: int
    fragments: int = 1
    bits: int = WHOLE_BITS
    hidden_steps: float = 0.0

    def bits_at_once(self, params: float, replicas: int) -> float:
        """What one replica sends for a fragment."""
        return 2 * (replicas - 1) / replicas * params * self.bits / self.fragments

    def mean_bandwidth(self, params: float, replicas: int, step_seconds: float) -> float:
        """Bits a second over the whole training."""
        return self.fragments * self.bits_at_once(params, replicas) / (self.steps * step_seconds)

    def peak_bandwidth(self, params: float, replicas: int, step_seconds: float) -> float:
        """Bits a second that keep every device busy; infinite where nothing hides a synchronisation."""
        hidden = self.hidden_steps * step_seconds
        return self.bits_at_once(params, replicas) / hidden if hidden else float("inf")

    def bandwidth(self, params: float, replicas: int, step_seconds: float, utilisation: float) -> float:
        """Bits a second at which devices compute for this share of the time."""
        exposed = step_seconds * self.steps / self.fragments * (1 / utilisation - 1)
        return self.bits_at_once(params, replicas) / (self.hidden_steps * step_seconds + exposed)

    def exposed_seconds(
        self, params: float, replicas: int, step_seconds: float, bits_per_second: float
    ) -> float:
        """What a step is longer for it, on average."""
        each = self.bits_at_once(params, replicas) / bits_per_second
        return self.fragments * max(0.0, each - self.hidden_steps * step_seconds) / self.steps

    def steps_to_hide(
        self, params: float, replicas: int, step_seconds: float, bits_per_second: float
    ) -> float:
        """How many steps one synchronisation lasts: with so many of delay it is hidden (Sun et al., CO2, 2401.16265,
        section 3: T_comm <= tau T_step)."""
        return self.bits_at_once(params, replicas) / bits_per_second / step_seconds


def every_step() -> Averaging:
    """Data-parallel training."""
    return Averaging(name="data-parallel", steps=1, hidden_steps=BACKWARD_SHARE)


def every_so_often(steps: int) -> Averaging:
    """DiLoCo."""
    return Averaging(name="DiLoCo", steps=steps)


def streaming(steps: int, layers: int) -> Averaging:
    """Streaming DiLoCo."""
    fragments = max(1, round(layers / FRAGMENT_LAYERS))
    return Averaging(
        name="streaming DiLoCo", steps=steps, fragments=min(fragments, steps), bits=FRAGMENT_BITS,
        hidden_steps=FRAGMENT_STEPS,
    )  # fmt: skip
