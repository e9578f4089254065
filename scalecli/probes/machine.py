"""What this machine has: cores, memory, devices, versions, and which extras are installed."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

EXTRAS = {
    "data": ("datasets", "tokenizers", "zstandard"),
    "hf": ("transformers",),
    "optimizers": ("pytorch_optimizer",),
    "parquet": ("pyarrow",),
    "plot": ("matplotlib",),
    "ray": ("ray",),
    "slurm": ("submitit",),
}
"""Extra -> the modules it brings."""

PACKAGES = ("scalecli", "torch", "numpy", "scipy", "pandas", "typer", "rich", "pydantic")


def describe() -> dict[str, Any]:
    """The document of `scalecli doctor`; sizes in bytes."""
    return {
        "schema": "scalecli/doctor/1",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_threads": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "devices": [_gpu(index) for index in range(torch.cuda.device_count())],
        "versions": {name: _version(name) for name in PACKAGES},
        "extras": {name: all(find_spec(module) for module in modules) for name, modules in EXTRAS.items()},
    }


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "name": properties.name,
        "memory_bytes": total,
        "free_bytes": free,
        "capability": f"{properties.major}.{properties.minor}",
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
