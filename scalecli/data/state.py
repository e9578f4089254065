"""Where things that were measured on this machine are kept between commands."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """`$SCALECLI_STATE`, or the folder for state of the user (XDG)."""
    state = os.environ.get("SCALECLI_STATE")
    if state is not None:
        return Path(state)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "scalecli"
