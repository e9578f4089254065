"""The optimizer step."""

from __future__ import annotations

from scalecli.accounting.memory.state import Bytes, State


def step(state: State) -> Bytes:
    """All gradients and what the optimizer holds for a moment; no activation is left, and no gathered weight."""
    resident = {name: size for name, size in state.resident.items() if name != "waiting micro-batches"}
    return resident | {"gradients": state.all_gradients, "optimizer temporaries": state.temporaries}
