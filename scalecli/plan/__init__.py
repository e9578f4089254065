"""Fits and a target in, a plan out: batch, learning rate, schedule, memory, layout, time and cost."""
