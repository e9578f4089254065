"""Validation by scale: fit to small runs, score on large ones; and the choice of a law by that score."""
