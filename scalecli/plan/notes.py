"""What a plan says beside its numbers: one line a value, with rule and source, and the warnings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.document import Interval, Line, Warning

ONE_RULE = "one rule has no spread"
# Why a number has no interval, by where it comes from; other lines say it themselves.
NO_INTERVAL = {
    "you": "as said",
    "runs": "held fixed by the runs",
    "fit": "no draw of the fit has an answer",
    "closed form": "counted, not estimated",
}


@dataclass
class Notes:
    """Collects lines and warnings while a plan is put together."""

    lines: list[Line] = field(default_factory=list)
    warnings: list[Warning] = field(default_factory=list)

    def line(
        self,
        name: str,
        value: FitInterval | float | str | None,
        *,
        unit: str,
        rule: str,
        source: str,
        warning: str | None = None,
        no_interval: str | None = None,
    ) -> None:
        """Add a recommended value; `source` is a catalogue key, `fit`, `runs`, `presets` or `you`.

        A number without an interval says in `no_interval` why it has none.
        """
        if isinstance(value, FitInterval):
            shown: dict[str, Any] = {"value": value.value, "low": value.low, "high": value.high}
        else:
            shown = {"value": value, "low": None, "high": None}
        alone = isinstance(shown["value"], float | int) and shown["low"] is None
        reason = no_interval or NO_INTERVAL.get(source) if alone else None
        line = Line(
            name=name, **shown, no_interval=reason, unit=unit, rule=rule, source=source, warning=warning
        )
        self.lines.append(line)

    def mark(self, names: Collection[str], warning: str) -> None:
        """Add a warning to the lines of these names that rest on a fit."""
        self.lines = [
            line.model_copy(update={"warning": "; ".join(filter(None, [warning, line.warning]))})
            if line.name in names and line.source == "fit"
            else line
            for line in self.lines
        ]

    def warn(self, code: str, message: str) -> None:
        """Add a warning once; codes begin with `W-`."""
        warning = Warning(code=code, message=message)
        if warning not in self.warnings:
            self.warnings.append(warning)

    def adopt(self, warnings: list[Mapping[str, str]], origin: str) -> None:
        """Take over the warnings of a fit that the plan rests on."""
        for warning in warnings:
            self.warn(warning["code"], f"{origin}: {warning['message']}")


def as_interval(found: FitInterval | None) -> Interval | None:
    """The document's form of an interval."""
    return None if found is None else Interval(value=found.value, low=found.low, high=found.high)
