"""Throughput over micro-batch sizes, and the largest that fits."""
