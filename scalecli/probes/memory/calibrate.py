"""Local training steps of a few sizes, each against its prediction."""

from __future__ import annotations

from collections.abc import Iterator

from scalecli.accounting.memory import Recipe, estimate_memory
from scalecli.accounting.memory.overhead import Comparison
from scalecli.accounting.shape import ModelShape
from scalecli.probes.memory.measure import measure_training

# The first two determine constant and share; the third tells how good they are. (layers, width, sequence)
CPU_SIZES = ((1, 256, 64), (2, 512, 64), (1, 512, 64))
GPU_SIZES = ((4, 1024, 1024), (8, 2048, 2048), (8, 1024, 2048))
VOCAB = 16_384


def compare_locally(device: str, recipe: Recipe, *, threads: int = 1) -> Iterator[Comparison]:
    """Measure three sizes in child processes; a size is yielded as soon as it is measured."""
    for layers, width, length in GPU_SIZES if device.startswith("cuda") else CPU_SIZES:
        shape = ModelShape(
            layers=layers, width=width, ffn=8 * width // 3 // 64 * 64,
            heads=width // 64, kv_heads=width // 64, vocab=VOCAB,
        )  # fmt: skip
        measured = measure_training(
            shape, recipe, micro_batch_sequences=1, sequence_length=length, device=device, threads=threads
        )
        predicted = estimate_memory(shape, recipe, micro_batch_sequences=1, sequence_length=length)
        yield Comparison(
            device=measured.device,
            version=measured.version,
            predicted_bytes=predicted.peak_bytes,
            allocated_bytes=measured.allocated_bytes,
            reserved_bytes=measured.reserved_bytes,
            used_bytes=measured.used_bytes,
        )
