"""Exact counts of parameters, FLOPs and bytes for a model shape: pure arithmetic, no torch."""
