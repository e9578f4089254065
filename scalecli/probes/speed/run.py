"""Times matrix products of many shapes, copies, launches and collectives on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from scalecli.errors import ProbeError
from scalecli.probes.device import Stopwatch, cpu_settings, device_name, out_of_memory, resolve_device
from scalecli.probes.speed.collective import bus_bandwidth
from scalecli.probes.speed.estimate import Product, Speeds
from scalecli.probes.throughput.host_memory import available_bytes

# Square products, then those of a layer with few tokens and with a narrow side.
SIZES = {"cpu": (128, 256, 512, 1024), "cuda": (512, 1024, 2048, 4096, 8192)}
DTYPES = {"cpu": ("float32", "bfloat16"), "cuda": ("bfloat16", "float16", "float32")}
REPEATS, LEAST_SECONDS, MOST_REPEATS = 5, 2e-3, 64
COPIED_BYTES = {"cpu": 2**27, "cuda": 2**30}
LAUNCHES = 1000
# A format this much slower than float32 is emulated: nothing is trained in it.
EMULATED = 0.5


def run(
    device: str,
    *,
    threads: int = 1,
    collectives: bool = True,
    on_product: Callable[[Product], None] | None = None,
) -> Speeds:
    """All measurements, one after another; every product is handed to `on_product` as it comes."""
    place = resolve_device(device)
    with cpu_settings(threads):
        products = []
        for product in _products(place):
            products.append(product)
            if on_product is not None:
                on_product(product)
        return Speeds(
            device=device_name(place),
            products=tuple(_without_emulated(products)),
            memory_bandwidth=memory_bandwidth(place),
            launch_seconds=launch_seconds(place),
            memory_bytes=_memory_bytes(place),
            devices=torch.cuda.device_count() if place.type == "cuda" else 1,
            multiprocessors=_multiprocessors(place),
            host_bandwidth=_host_bandwidth(place),
            collective_bandwidth=bus_bandwidth(place.type) if collectives else None,
            watts=_watts(place),
        )


def _products(place: torch.device) -> Iterator[Product]:
    sizes = SIZES[place.type]
    middle, largest = sizes[-2], sizes[-1]
    shapes = [(size, size, size) for size in sizes]
    shapes += [(middle, largest, middle), (sizes[0], largest, largest), (largest, sizes[0], largest)]
    for dtype in DTYPES[place.type]:
        for m, n, k in shapes:
            try:
                yield Product(dtype=dtype, m=m, n=n, k=k, seconds=_product_seconds(place, dtype, m, n, k))
            except RuntimeError as error:
                if out_of_memory(error):
                    continue  # the larger shapes are left out on a small device
                raise ProbeError(f"a {dtype} product cannot be computed on {place}: {error}") from error


def _product_seconds(place: torch.device, dtype: str, m: int, n: int, k: int) -> float:
    kind = getattr(torch, dtype)
    left = torch.randn(m, k, device=place, dtype=kind)
    right = torch.randn(k, n, device=place, dtype=kind)
    return _seconds(lambda: left @ right, place)


def _seconds(action: Callable[[], object], place: torch.device) -> float:
    """The shortest of several rounds, each long enough to be timed: what other work on the machine delays is not it."""
    action()
    rounds = 1
    while _timed(action, rounds, place) * rounds < LEAST_SECONDS and rounds < MOST_REPEATS:
        rounds *= 2
    return min(_timed(action, rounds, place) for _ in range(REPEATS))


def _timed(action: Callable[[], object], rounds: int, place: torch.device) -> float:
    watch = Stopwatch(place)
    watch.start()
    for _ in range(rounds):
        action()
    watch.stop()
    return watch.seconds / rounds


def _without_emulated(products: list[Product]) -> list[Product]:
    """Formats that are slower than float32 because the device has no units for them are left out."""
    best = {p.dtype: max(q.flops_per_second for q in products if q.dtype == p.dtype) for p in products}
    plain = best.get("float32", 0.0)
    return [p for p in products if p.dtype == "float32" or best[p.dtype] > EMULATED * plain]


def memory_bandwidth(place: torch.device) -> float:
    """Bytes read and written a second by a copy."""
    source = torch.zeros(COPIED_BYTES[place.type], dtype=torch.uint8, device=place)
    target = torch.empty_like(source)
    return 2 * source.numel() / _seconds(lambda: target.copy_(source), place)


def launch_seconds(place: torch.device) -> float:
    """Between two of the smallest operations."""
    tiny = torch.zeros(16, device=place)

    def many() -> None:
        for _ in range(LAUNCHES):
            tiny.add_(1.0)

    return _seconds(many, place) / LAUNCHES


def _host_bandwidth(place: torch.device) -> float | None:
    """Of a copy from pinned host memory to a GPU."""
    if place.type != "cuda":
        return None
    host = torch.empty(2**28, dtype=torch.uint8, pin_memory=True)
    target = torch.empty_like(host, device=place)
    return host.numel() / _seconds(lambda: target.copy_(host, non_blocking=True), place)


def _memory_bytes(place: torch.device) -> int:
    if place.type == "cuda":
        return int(torch.cuda.get_device_properties(place).total_memory)
    return available_bytes()


def _multiprocessors(place: torch.device) -> int | None:
    if place.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(place).multi_processor_count)


def _watts(place: torch.device) -> float | None:
    """What the GPU draws at work, where its driver's library is installed."""
    if place.type != "cuda":
        return None
    size = SIZES["cuda"][-2]
    factor = torch.randn(size, size, device=place, dtype=torch.bfloat16)
    for _ in range(LAUNCHES):
        factor @ factor
    try:
        drawn = torch.cuda.power_draw(place) / 1000
    except (ModuleNotFoundError, RuntimeError):
        return None
    finally:
        torch.cuda.synchronize(place)
    return float(drawn)
