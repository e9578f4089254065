"""The picture of a quickstart: the prediction made before the target was trained, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scalecli.report.figure import BLUE, GREEN, GREY, ORANGE, figure


def draw_quickstart(path: Path, runs: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> None:
    """Left: loss over compute, the probes and the target. Right: the target against the alternatives."""
    with figure(path, panels=2) as (left, right):
        _draw_compute(left, runs, document)
        _draw_alternatives(right, document)


def _draw_compute(axes: Any, runs: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> None:
    predicted, measured = document["predicted"], document["measured"]
    flops = document["target"]["flops"]
    axes.plot(
        [r["flops"] for r in runs],
        [r["loss"] for r in runs],
        "o",
        ms=3,
        color=GREY,
        alpha=0.6,
        label="probes",
    )
    below, above = predicted["value"] - predicted["low"], predicted["high"] - predicted["value"]
    share = f"{document['interval']:.0%} interval"
    axes.errorbar(
        [flops],
        [predicted["value"]],
        yerr=[[below], [above]],
        fmt="s",
        color=BLUE,
        capsize=4,
        label=f"predicted, {share}",
    )
    axes.plot(
        [flops] * len(measured["losses"]), measured["losses"], "x", color=ORANGE, ms=7, label="measured"
    )
    axes.set(
        xscale="log",
        xlabel="compute, 6 N D [FLOP]",
        ylabel="held-out loss [nats/token]",
        title="Predicted and measured",
    )
    axes.legend(frameon=False)


def _draw_alternatives(axes: Any, document: Mapping[str, Any]) -> None:
    rivals = sorted(
        document["alternatives"], key=lambda rival: rival["gain"] if rival["gain"] is not None else 1e9
    )
    finished = [rival for rival in rivals if rival["gain"] is not None]
    colours = [GREEN if rival["gain"] > 0 else ORANGE for rival in finished]
    names = [rival["name"] for rival in finished]
    axes.barh(names, [rival["gain"] for rival in finished], color=colours)
    noise = document["measured"]["seed_std"]
    if noise is not None:
        axes.axvspan(-noise, noise, color=GREY, alpha=0.25, label="one standard deviation between seeds")
        axes.legend(frameon=False)
    axes.axvline(0.0, color="black", lw=0.8)
    axes.set(xlabel="loss above the recommended setting [nats/token]", title="What the recommendation gains")
