"""The moments of a training step: each function returns the bytes of every term at the moment's highest point."""

from collections.abc import Callable

from scalecli.accounting.memory.moments.backward import backward
from scalecli.accounting.memory.moments.forward import forward
from scalecli.accounting.memory.moments.loss import loss
from scalecli.accounting.memory.moments.step import step
from scalecli.accounting.memory.recipe import Moment
from scalecli.accounting.memory.state import Bytes, State

PEAKS: dict[Moment, Callable[[State], Bytes]] = {
    "forward": forward,
    "loss": loss,
    "backward": backward,
    "step": step,
}
