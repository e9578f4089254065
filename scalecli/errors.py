"""Every error a user can meet, each with its exit code.

A message is the fact with numbers and the likely cause; `hint` is the next command or change to try.
`ValueError` and friends from our own code stay bugs and show their traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class ScalecliError(Exception):
    """Root of every error that is the user's to fix. `exit_code` is unique per class."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DataError(ScalecliError):
    """A file, store or corpus cannot be used as it is."""

    exit_code = 10


class TooFewRuns(DataError):
    """There are fewer usable runs than the law has parameters."""

    exit_code = 11


class BadRow(DataError):
    """One value in a run table is not what its column promises."""

    exit_code = 12

    def __init__(self, message: str, *, file: str, line: int | None, field: str, hint: str = "") -> None:
        place = file if line is None else f"{file}:{line}"
        super().__init__(f"{place}: {field}: {message}", hint=hint)
        self.file = file
        self.line = line
        self.field = field


class FitError(ScalecliError):
    """No usable estimate exists."""

    exit_code = 20


class NoOptimum(FitError):
    """The fitted surface has no interior optimum, or a value lies beyond what the law can reach."""

    exit_code = 21


class NotIdentified(FitError):
    """The runs cannot determine the law's parameters, however many there are."""

    exit_code = 22


class ProbeError(ScalecliError):
    """A measurement could not be made."""

    exit_code = 30


class NotEnoughSignal(ProbeError):
    """A statistic is not resolved by its samples; `estimate` is what they gave all the same."""

    exit_code = 31

    def __init__(self, message: str, *, estimate: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.estimate = estimate


class OutOfMemory(ProbeError):
    """The device ran out; carries the peak that was reached and the largest setting that fitted."""

    exit_code = 32

    def __init__(
        self, message: str, *, peak_bytes: int | None, largest_fitting: int | None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.peak_bytes = peak_bytes
        self.largest_fitting = largest_fitting


class SweepIncomplete(ProbeError):
    """A sweep ended with failed probes; what finished is stored."""

    exit_code = 33


class PlanError(ScalecliError):
    """No plan answers the target."""

    exit_code = 40


class UnknownAccelerator(PlanError):
    """The accelerator is in no catalogue; the message lists close names."""

    exit_code = 41


class DoesNotFit(PlanError):
    """No layout fits; `budget` says which bytes go where [bytes]."""

    exit_code = 42

    def __init__(self, message: str, *, budget: dict[str, int], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.budget = budget


class ExportError(ScalecliError):
    """A plan cannot be written in the wanted form."""

    exit_code = 50


@contextmanager
def needs_extra(extra: str, what: str, error: type[ScalecliError]) -> Iterator[None]:
    """Imports inside the block come with `scalecli[extra]`; a missing one is `error`, with the line to install it."""
    try:
        yield
    except ImportError as missing:
        raise error(
            f"{what} needs {missing.name}, which is not installed", hint=f"pip install 'scalecli[{extra}]'"
        ) from missing
