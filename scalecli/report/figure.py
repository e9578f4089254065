"""One way to make a figure file: without a display, with the extra that is missing named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scalecli.errors import ExportError, needs_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by colour-blind readers and in greyscale.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


@contextmanager
def figure(path: Path, *, panels: int = 1, width: float = 5.0, height: float = 3.8) -> Iterator[list[Axes]]:
    """Axes to draw on; the file (SVG or PNG by its suffix) is written when the block ends."""
    with needs_extra("plot", "a figure", ExportError):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    drawn = Figure(figsize=(width * panels, height), layout="constrained")
    FigureCanvasAgg(drawn)
    yield list(drawn.subplots(1, panels, squeeze=False)[0])
    try:
        drawn.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written: {error.strerror}", hint="choose another folder"
        ) from error
