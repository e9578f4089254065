"""Proxy training: one run, runs side by side, runs branching from one trunk."""

from scalecli.probes.columns import Row
from scalecli.probes.train.run import OnStep, StepReport, train, train_together

__all__ = ["OnStep", "Row", "StepReport", "train", "train_together"]
