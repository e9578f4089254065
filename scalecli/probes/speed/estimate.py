"""Measured speeds as an accelerator of the catalogue, and how well the time model of a product fits them. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scalecli.accounting.kernels import Engine, matmul
from scalecli.data.catalogue import Accelerator
from scalecli.errors import ProbeError

# What a training step's products look like: those whose work is at least this share of the largest one's.
LARGE = 0.1
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
FORMATS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """An (m, k) by (k, n) matrix product; seconds are the shortest of several."""

    dtype: str
    m: int
    n: int
    k: int
    seconds: float

    @property
    def flops(self) -> int:
        return 2 * self.m * self.n * self.k

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Everything that was measured; bandwidths in bytes/s, None where there is nothing to measure."""

    device: str
    products: tuple[Product, ...]
    memory_bandwidth: float
    launch_seconds: float
    memory_bytes: int
    devices: int = 1
    multiprocessors: int | None = None
    host_bandwidth: float | None = None
    collective_bandwidth: float | None = None
    """Bus bandwidth of an all-reduce over the devices (or processes) of this machine."""
    watts: float | None = None
    """Drawn during the largest products."""

    def best(self, dtype: str) -> float:
        """The fastest product of that format [FLOP/s]."""
        return max(product.flops_per_second for product in self.products if product.dtype == dtype)

    @property
    def dtypes(self) -> list[str]:
        return list(dict.fromkeys(product.dtype for product in self.products))


def training_share(speeds: Speeds, dtype: str) -> float:
    """Speed of the large products, one of each, relative to the fastest one."""
    products = [product for product in speeds.products if product.dtype == dtype]
    largest = max(product.flops for product in products)
    large = [product for product in products if product.flops >= LARGE * largest]
    together = sum(product.flops for product in large) / sum(product.seconds for product in large)
    return together / speeds.best(dtype)


def accelerator_entry(speeds: Speeds, known: Accelerator | None) -> dict[str, Any]:
    """The measured device as an entry of an accelerators file.

    `known` is what the catalogue calls it: its data sheet's peaks are kept, and the efficiency is relative to them.
    Raises ProbeError where the two have no number format in common.
    """
    measured = {FORMATS[dtype]: speeds.best(dtype) for dtype in speeds.dtypes}
    narrow = next(dtype for dtype in ("bfloat16", "float16", "float32") if dtype in speeds.dtypes)
    share = training_share(speeds, narrow)
    entry: dict[str, Any] = {
        "vendor": "measured",
        "memory_bytes": speeds.memory_bytes,
        "peak_flops": measured,
    }
    if known is not None:
        peak = known.peak_flops.get(FORMATS[narrow])
        if peak is None:
            raise ProbeError(f"the catalogue has no {FORMATS[narrow]} peak of {known.name}")
        share *= speeds.best(narrow) / peak
        entry |= {"vendor": known.vendor, "peak_flops": dict(known.peak_flops)}
        if known.power_watts is not None:
            entry["power_watts"] = known.power_watts
        if known.network_bandwidth is not None:
            entry["network_bandwidth"] = known.network_bandwidth
    entry |= {
        "kernel_efficiency": min(1.0, share),
        "memory_bandwidth": speeds.memory_bandwidth,
        "launch_seconds": speeds.launch_seconds,
        "source": "you",
        "where": f"measured on {speeds.device}",
    }
    if speeds.multiprocessors is not None:
        entry["multiprocessors"] = speeds.multiprocessors
    if speeds.devices > 1:
        entry["devices_per_node"] = speeds.devices
        if speeds.collective_bandwidth is not None:
            entry["link_bandwidth"] = speeds.collective_bandwidth
    if speeds.watts is not None:
        entry["power_watts"] = speeds.watts
    return entry


def model_errors(speeds: Speeds) -> Iterator[tuple[Product, float]]:
    """Each product with the time model's seconds over the measured ones, less 1."""
    for product in speeds.products:
        engine = Engine(
            matmul_flops=speeds.best(product.dtype), head_flops=speeds.best(product.dtype),
            attention_flops=speeds.best(product.dtype), memory_bandwidth=speeds.memory_bandwidth,
            launch_seconds=speeds.launch_seconds, multiprocessors=speeds.multiprocessors,
            value_bytes=BYTES[product.dtype],
        )  # fmt: skip
        yield product, matmul(engine, product.m, product.n, product.k) / product.seconds - 1


def typical_error(errors: Sequence[float]) -> float:
    """Median size of the errors, on a log scale."""
    return math.expm1(statistics.median(abs(math.log1p(error)) for error in errors))


def toml_entry(name: str, entry: dict[str, Any]) -> str:
    """The entry as TOML.

    >>> print(toml_entry("mine", {"vendor": "x", "peak_flops": {"bf16": 1e12}}))
    [mine]
    vendor = "x"
    peak_flops = { bf16 = 1e+12 }
    """
    return "\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in entry.items())])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{value:.6g}" if isinstance(value, float) else str(value)
