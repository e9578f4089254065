"""Peak memory of real training steps, measured in a child process: `python -m scalecli.probes.memory.measure`.

The child reads one job as JSON from standard input and writes one line of JSON. On a GPU it reports the allocator's
peak and what the driver sees; on a CPU the growth of its resident memory beyond a small warm-up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import OutOfMemory, ProbeError

STEPS = 3
# glibc returns blocks above this size to the system at once, so that resident memory follows what is alive.
MMAP_THRESHOLD = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes at the peak of a training step on a real device."""

    device: str
    version: str
    allocated_bytes: int
    """Tensors alive: by the allocator on a GPU, by resident memory on a CPU."""
    reserved_bytes: int
    """Held by the allocator on a GPU; the same as allocated on a CPU."""
    used_bytes: int
    """With context and workspaces, as the driver sees it; the whole process on a CPU."""


def measure_training(
    shape: ModelShape,
    recipe: Recipe,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
    device: str = "cpu",
    threads: int = 1,
    timeout_seconds: float = 600,
) -> Measured:
    """Train that decoder for three steps in a process of its own.

    Raises OutOfMemory if the device ran out, ProbeError if the child ended in another way.
    """
    job = {
        "shape": asdict(shape), "recipe": asdict(recipe), "micro_batch_sequences": micro_batch_sequences,
        "sequence_length": sequence_length, "device": device,
    }  # fmt: skip
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "scalecli.probes.memory.measure"],
            input=json.dumps(job), capture_output=True, text=True, env=environment, timeout=timeout_seconds,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ProbeError(
            f"three steps took more than {timeout_seconds:g} s", hint="measure a smaller model"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["silence"])[-1]
        raise ProbeError(
            f"the measuring process ended with {done.returncode}: {last}",
            hint="a negative code is a signal; -9 is often the system's own out-of-memory killer",
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    if "out_of_memory" in answer:
        raise OutOfMemory(
            answer["out_of_memory"], peak_bytes=answer["peak_bytes"], largest_fitting=None,
            hint="a smaller micro-batch, --recompute full or --logits chunked",
        )  # fmt: skip
    return Measured(**answer)


def _main() -> None:
    job = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(_measure(job)) + "\n")


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    import torch

    from scalecli.probes.device import device_name, out_of_memory, resolve_device
    from scalecli.probes.memory.training import decoder_training

    device = resolve_device(job["device"])
    shape, recipe = ModelShape(**job["shape"]), Recipe(**job["recipe"])
    size = {"micro_batch_sequences": job["micro_batch_sequences"], "sequence_length": job["sequence_length"]}
    meter = _CudaMeter(device) if device.type == "cuda" else _ResidentMeter()
    with torch.device(device):
        tiny = ModelShape(layers=1, width=32, ffn=64, heads=2, kv_heads=2, vocab=64)
        _train(decoder_training(tiny, recipe, micro_batch_sequences=1, sequence_length=8), recipe)
        meter.begin()
        try:
            _train(decoder_training(shape, recipe, **size), recipe)
        except (RuntimeError, MemoryError) as error:
            if not (message := out_of_memory(error)):
                raise
            return {"out_of_memory": message, "peak_bytes": meter.peak()["allocated_bytes"]}
    return {"device": device_name(device), "version": torch.__version__, **meter.peak()}


def _train(training: Any, recipe: Recipe) -> None:
    """Steps on whatever the weights are: uninitialised values take as many bytes."""
    for _ in range(STEPS):
        for _ in range(recipe.accumulation):
            training.forward(lambda _: None).backward()
        for optimizer in training.optimizers:
            optimizer.step()
            optimizer.zero_grad()


class _CudaMeter:
    """The caching allocator's own peaks; the driver's figure holds other processes' memory too."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def begin(self) -> None:
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> dict[str, int]:
        import torch

        free, total = torch.cuda.mem_get_info(self.device)
        return {
            "allocated_bytes": torch.cuda.max_memory_allocated(self.device),
            "reserved_bytes": torch.cuda.max_memory_reserved(self.device),
            "used_bytes": total - free,
        }


class _ResidentMeter:
    """Peak of resident memory (Linux), beyond what was resident when it began."""

    def __init__(self) -> None:
        self.base = 0

    def begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        self.base = _status("VmRSS")

    def peak(self) -> dict[str, int]:
        highest = _status("VmHWM")
        grown = highest - self.base
        return {"allocated_bytes": grown, "reserved_bytes": grown, "used_bytes": highest}


def _status(name: str) -> int:
    """A line of /proc/self/status [bytes]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProbeError(f"/proc/self/status has no {name}", hint="resident memory is measured on Linux")


if __name__ == "__main__":
    _main()
