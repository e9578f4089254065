"""One trial in a process of its own: `python -m scalecli.probes.throughput.child`.

Reads `{"config": .., "device": .., "threads": .., "limit_bytes": ..}` from standard input, trains a few steps
on random tokens, and prints `{"fits": .., "peak_bytes": .., ...}`. Running out of memory here hurts nobody.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from scalecli.data.corpus import Corpus
from scalecli.probes.config import ProbeConfig
from scalecli.probes.corpora import corpus_of
from scalecli.probes.device import Stopwatch, cpu_settings, out_of_memory, resolve_device
from scalecli.probes.foreign import ForeignShape
from scalecli.probes.speed.run import launch_seconds, memory_bandwidth
from scalecli.probes.throughput.host_memory import HostMemory
from scalecli.probes.throughput.roofline import Bound, roofline
from scalecli.probes.train.trainer import Trainer

WARM_UP_STEPS, TIMED_STEPS = 2, 4
MATMUL_SIZE = {"cpu": 1024, "cuda": 8192}
MATMUL_REPEATS = 10


def main(task: dict[str, Any]) -> dict[str, Any]:
    config = ProbeConfig.from_dict(task["config"])
    device = resolve_device(task["device"])
    # A first small step loads the libraries: their pages are the process's, not the batch's.
    _seconds_per_step(replace(config, batch_sequences=1), device)
    host = HostMemory.now() if device.type == "cpu" else None
    limit = task["limit_bytes"]
    if limit is not None:
        host.limit(limit) if host else _limit_cuda(limit, device)
    with cpu_settings(task["threads"]):
        try:
            seconds = _seconds_per_step(config, device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return {"fits": False}
        peak = host.grown_by() if host else torch.cuda.max_memory_reserved(device)
        if host:
            host.lift()
        matmul = _matmul_flops_per_second(device, config.dtype)
        waits_for = _bound(config, device, matmul)
    tokens_per_second = config.batch_tokens / seconds
    return {
        "fits": limit is None or peak <= limit,
        "peak_bytes": peak,
        "tokens_per_second": tokens_per_second,
        "matmul_flops_per_second": matmul,
        "mfu": config.flops_exact / config.tokens * tokens_per_second / matmul,
        "bound": waits_for,
    }


def _seconds_per_step(config: ProbeConfig, device: torch.device) -> float:
    trainer = Trainer([config], random_corpus(config), device=device)
    watch = Stopwatch(device)
    for step in range(WARM_UP_STEPS + TIMED_STEPS):
        if step == WARM_UP_STEPS:
            watch.start()
        trainer.advance(1.0)
    watch.stop()
    return watch.seconds / TIMED_STEPS


def _bound(config: ProbeConfig, device: torch.device, matmul: float) -> Bound | None:
    """What the step waits for; None for a model whose kernels are not counted."""
    if isinstance(config.shape, ForeignShape):
        return None
    return roofline(
        config.shape, dtype=config.dtype, sequences=config.batch_sequences, sequence_length=config.sequence_length,
        matmul_flops=matmul, memory_bandwidth=memory_bandwidth(device), launch_seconds=launch_seconds(device),
    ).bound  # fmt: skip


def random_corpus(config: ProbeConfig) -> Corpus:
    """Just enough tokens for the trial: their values change neither time nor memory. Tasks bring their own."""
    if not config.shape.vocab:
        return corpus_of(config)
    rng = np.random.default_rng(0)
    count = config.sequence_length * (config.batch_sequences + config.evaluation.sequences) + 1
    tokens = rng.integers(0, min(256, config.shape.vocab), count, dtype=np.uint8)
    return Corpus(
        name="random",
        train=tokens,
        validation=tokens,
        vocab=config.shape.vocab,
        bytes_per_token=1.0,
        sha256=config.data_sha256,
    )


def _limit_cuda(limit_bytes: int, device: torch.device) -> None:
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)


def _matmul_flops_per_second(device: torch.device, dtype: str) -> float:
    """What a large matrix product reaches: the practical limit of this device and number format."""
    size = MATMUL_SIZE[device.type]
    factor = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    factor @ factor
    watch = Stopwatch(device)
    watch.start()
    for _ in range(MATMUL_REPEATS):
        factor @ factor
    watch.stop()
    return MATMUL_REPEATS * 2 * size**3 / watch.seconds


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.load(sys.stdin))) + "\n")
