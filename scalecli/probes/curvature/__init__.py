"""Extreme curvature of the loss along a training, and the largest learning rate that it leaves stable."""
