"""Gradient noise scale along a training."""
