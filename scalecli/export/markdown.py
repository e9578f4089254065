"""A plan as Markdown, for a pull request or a design document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from scalecli.plan.document import Choice, Interval, Line, Plan, Preset, Stage
from scalecli.units import format_bytes, format_count

CHOICE = ("batch [tokens]", "steps", "extra tokens", "excess loss", "as compute", "learning rate", "days")
STAGE = ("from token", "batch [tokens]", "× learning rate")
PRESET = ("rule", "kind", "batch [tokens]", "learning rate", "in its range", "note")

ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": " ", **{mark: f"\\{mark}" for mark in "|[]*`"}}
)


def to_markdown(plan: Plan) -> str:
    """The whole plan: recommendation first, then what it rests on."""
    return "\n".join(_document(plan)) + "\n"


def _document(plan: Plan) -> Iterator[str]:
    target = plan.target
    yield f"# Plan: {format_count(target.params)} parameters on {format_count(target.tokens)} tokens"
    yield ""
    yield from _recommendation(plan)
    if plan.warnings:
        yield "## Warnings"
        yield ""
        yield from (markdown_warning(warning.code, warning.message) for warning in plan.warnings)
        yield ""
    yield "## Every value, its rule and its source"
    yield ""
    yield from markdown_table(("value", "", "unit", "rule", "source"), (_line(line) for line in plan.lines))
    if plan.batch.tradeoff:
        yield "## What another batch size would cost"
        yield ""
        yield from markdown_table(CHOICE, map(_choice, plan.batch.tradeoff))
    if len(plan.batch.schedule) > 1:
        yield "## Batch over training"
        yield ""
        yield from markdown_table(STAGE, map(_stage, plan.batch.schedule))
    if plan.memory is not None:
        size, moment = format_bytes(plan.memory.per_device_bytes), plan.memory.peak.moment
        yield f"## Memory of one device: {size}, highest at {moment}"
        yield ""
        yield from markdown_table(
            ("term", "bytes", "rule"), ((t.name, format_bytes(t.bytes), t.rule) for t in plan.memory.terms)
        )
    if plan.presets:
        yield "## What published rules say here"
        yield ""
        yield from markdown_table(PRESET, map(_preset, plan.presets))


def _recommendation(plan: Plan) -> Iterator[str]:
    batch, rate = plan.batch, plan.learning_rate
    rows = [
        (
            "batch",
            f"{_span(batch.tokens, count=True)} tokens, run as {batch.sequences} sequences of {batch.sequence_length}",
        ),
        ("steps", str(batch.steps)),
        ("peak learning rate", _span(rate.peak)),
        (
            "schedule",
            f"{rate.schedule}, warm-up {_count(rate.warmup_tokens)} tokens, decay over {_count(rate.decay_tokens)}",
        ),
        ("loss", f"{_span(plan.loss)} nats/token"),
    ]
    if batch.flat_range_tokens:
        low, high = batch.flat_range_tokens
        rows.insert(
            1, ("batch within 0.1 % of the loss", f"{format_count(low)} … {format_count(high)} tokens")
        )
    if rate.flat_range:
        low, high = rate.flat_range
        rows.insert(-2, ("rate within 0.1 % of the loss", f"{low:.3g} … {high:.3g}"))
    if plan.cost is not None:
        rows.append(("time", f"{_span(plan.cost.days)} days at MFU {_span(plan.cost.mfu)}"))
    yield from markdown_table(("", "recommended"), rows)


def _choice(choice: Choice) -> Sequence[str]:
    return (
        format_count(choice.batch_tokens),
        str(choice.steps),
        _share(choice.extra_tokens_fraction),
        _number(choice.excess_loss),
        _share(choice.excess_compute_fraction),
        _number(choice.learning_rate),
        _number(choice.days),
    )


def _stage(stage: Stage) -> Sequence[str]:
    return (
        format_count(stage.from_token),
        format_count(stage.batch_tokens),
        _number(stage.learning_rate_factor),
    )


def _preset(preset: Preset) -> Sequence[str]:
    valid = "yes" if preset.valid else "no"
    return (
        preset.source,
        preset.quantity,
        _count(preset.batch_tokens),
        _number(preset.learning_rate),
        valid,
        preset.note,
    )


def _line(line: Line) -> Sequence[str]:
    value = line.value if isinstance(line.value, str) else _number(line.value)
    if line.low is not None and line.high is not None:
        value = f"{value} ({_number(line.low)} … {_number(line.high)})"
    elif line.no_interval is not None:
        value = f"{value} ({line.no_interval})"
    rule = line.rule if line.warning is None else f"{line.rule}; {line.warning}"
    return line.name, value, line.unit, rule, line.source


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for row in rows:
        yield "| " + " | ".join(_escape(cell) for cell in row) + " |"
    yield ""


def markdown_warning(code: str, message: str) -> str:
    """An item of a list."""
    return f"- **{_escape(code)}** {_escape(message)}"


def _escape(text: str) -> str:
    """Text as it stands: a cell stays a cell, and a file of somebody else's brings no HTML, link or picture."""
    return text.translate(ESCAPES)


def _span(found: Interval | None, *, count: bool = False) -> str:
    if found is None:
        return "not known"
    read = format_count if count else _number
    if found.low is None or found.high is None:
        return read(found.value)
    return f"{read(found.value)} ({read(found.low)} … {read(found.high)})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _count(value: float | None) -> str:
    return "–" if value is None else format_count(value)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"
