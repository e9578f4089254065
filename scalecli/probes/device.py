"""Devices by name, and the settings that make a CPU probe fast and repeatable."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from scalecli.errors import ProbeError
from scalecli.probes.throughput.host_memory import available_bytes


def resolve_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, or the CPU where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ProbeError(f"there is no device {name!r}", hint="use cpu, cuda, cuda:1, or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ProbeError(f"torch {torch.__version__} sees no CUDA device", hint="use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise ProbeError(f"probes do not run on {device.type}", hint="use cpu or cuda")
    return device


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nobody uses; on a CPU, what the machine could still give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_bytes()


def out_of_memory(error: BaseException) -> str:
    """The first line of an error that says memory ran out; empty for any other. On CPUs torch raises no type
    of its own.
    """
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return text.splitlines()[0] if text else "out of memory"
    return ""


@contextmanager
def cpu_settings(threads: int) -> Iterator[None]:
    """A fixed number of threads: the default collapses on a busy machine, and results depend on it.

    Denormals count as zero meanwhile: Adam's second moments reach them, and they are slow.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


class Stopwatch:
    """Seconds of device work between `start` and `stop`, added up."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        self._wait()
        self._started = time.perf_counter()

    def stop(self) -> None:
        self._wait()
        self.seconds += time.perf_counter() - self._started

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
