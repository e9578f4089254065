"""The summary of a quickstart as Markdown: predicted against measured, and against the alternatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scalecli.export.markdown import markdown_table, markdown_warning
from scalecli.units import format_count


def to_markdown(document: Mapping[str, Any]) -> str:
    """The whole summary."""
    return "\n".join(_lines(document)) + "\n"


def verdict(document: Mapping[str, Any]) -> str:
    """One sentence: predicted against measured."""
    predicted, measured = document["predicted"], document["measured"]
    inside = "inside" if measured["inside_interval"] else "outside"
    return (
        f"predicted {predicted['value']:.3f} ({predicted['low']:.3f} … {predicted['high']:.3f}, "
        f"{document['interval']:.0%} interval), measured {measured['loss']:.3f} nats/token: {inside} the interval"
    )


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    target, measured, recommended = document["target"], document["measured"], document["recommended"]
    yield "# Quickstart: predicted against measured"
    yield ""
    yield (
        f"Target: {format_count(target['params'])} parameters on {format_count(target['tokens'])} tokens, larger than "
        f"any model of the ladder. Recommended: batch {format_count(recommended['batch_tokens'])} tokens, "
        f"peak learning rate {recommended['learning_rate']:.3g}."
    )
    yield ""
    yield f"**{verdict(document)}.**"
    yield ""
    yield f"- {len(measured['losses'])} seeds of the recommended setting: {_listed(measured['losses'])}"
    if measured["seed_std"] is not None:
        yield f"- standard deviation between seeds: {measured['seed_std']:.4f}"
    yield f"- standard error of the held-out set, shared by all runs: {measured['evaluation_std']:.4f}"
    yield ""
    if "prediction.svg" in document["files"]:
        yield "![Predicted and measured loss; what the recommendation gains](prediction.svg)"
        yield ""
    yield "## Against the alternatives"
    yield ""
    rows = (
        (r["name"], format_count(r["batch_tokens"]), f"{r['learning_rate']:.3g}", *_result(r))
        for r in document["alternatives"]
    )
    yield from markdown_table(
        ("setting", "batch [tokens]", "learning rate", "loss", "recommended is better by"), rows
    )
    if document["warnings"]:
        yield "## Warnings"
        yield ""
        yield from (markdown_warning(warning["code"], warning["message"]) for warning in document["warnings"])


def _listed(losses: list[float]) -> str:
    return ", ".join(f"{loss:.4f}" for loss in losses)


def _result(rival: Mapping[str, Any]) -> tuple[str, str]:
    return (
        (rival["status"], "–") if rival["loss"] is None else (f"{rival['loss']:.4f}", f"{rival['gain']:+.4f}")
    )
