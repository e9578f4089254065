"""An all-reduce over the GPUs of this machine, or over two processes of a CPU.

Ranks are processes of their own (`python -m scalecli.probes.speed.collective`) and meet through a file.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

SIZE_BYTES = {"cpu": 2**24, "cuda": 2**28}
BACKEND = {"cpu": "gloo", "cuda": "nccl"}
WARM_UPS, REPEATS = 2, 5
TIMEOUT_SECONDS = 120.0


def bus_bandwidth(kind: str) -> float | None:
    """Bytes a second that each rank passes on in a ring; None with one GPU, or where ranks cannot meet."""
    ranks = torch.cuda.device_count() if kind == "cuda" else 2
    if ranks < 2 or not dist.is_available():
        return None
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        children = [
            subprocess.Popen(
                [sys.executable, "-m", "scalecli.probes.speed.collective", kind, str(rank), str(ranks), str(meeting)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
            for rank in range(ranks)
        ]  # fmt: skip
        try:
            said = [child.communicate(timeout=TIMEOUT_SECONDS)[0] for child in children]
        except subprocess.TimeoutExpired:
            return None
        finally:
            for child in children:
                child.kill()
    if any(child.returncode for child in children):
        return None
    return float(json.loads(said[0])["bus_bandwidth"])


def main(kind: str, rank: int, ranks: int, meeting: str) -> dict[str, float]:
    """What one rank does. An all-reduce passes 2 (n - 1)/n of its bytes over each link."""
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device("cpu")
    dist.init_process_group(BACKEND[kind], init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    values = torch.zeros(SIZE_BYTES[kind] // 4, device=device)
    seconds = [_all_reduce(values) for _ in range(WARM_UPS + REPEATS)][WARM_UPS:]
    dist.destroy_process_group()
    passed = 2 * (ranks - 1) / ranks * SIZE_BYTES[kind]
    return {"bus_bandwidth": passed / statistics.median(seconds)}


def _all_reduce(values: torch.Tensor) -> float:
    dist.barrier()
    started = time.perf_counter()
    dist.all_reduce(values)
    if values.is_cuda:
        torch.cuda.synchronize(values.device)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])) + "\n")
