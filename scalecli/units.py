"""Quantities as people write them (`7B`, `1.4T`, `512k`, `80GiB`, `3h`) and as they read them."""

from __future__ import annotations

import math
import re

_DECIMAL = {
    "": 1.0,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "m": 1e6,
    "B": 1e9,
    "b": 1e9,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
}
_BYTES = {
    "": 1, "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(
    r"\s*([0-9][0-9_,]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*"
)


def _parse(text: str, suffixes: dict[str, float] | dict[str, int], kind: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match.group(2) not in suffixes:
        known = ", ".join(s for s in suffixes if s)
        raise ValueError(f"{text!r} is not a {kind} (a number, optionally followed by one of {known})")
    value = float(match.group(1).replace("_", "").replace(",", "")) * suffixes[match.group(2)]
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is too large for a {kind}")
    return value


def parse_count(text: str) -> float:
    """A count of parameters, tokens or FLOPs: `7B`, `7e9`, `1.4T`, `512k`.

    >>> parse_count("1.4T")
    1400000000000.0
    """
    return _parse(text, _DECIMAL, "quantity")


def parse_bytes(text: str) -> int:
    """A size in bytes: `80GiB`, `512MB`.

    >>> parse_bytes("80GiB")
    85899345920
    """
    return round(_parse(text, _BYTES, "size in bytes"))


def parse_duration(text: str) -> float:
    """A duration in seconds: `3h`, `90s`, `5m`.

    >>> parse_duration("3h")
    10800.0
    """
    return _parse(text, _SECONDS, "duration")


def format_count(value: float) -> str:
    """Three significant digits with a decimal suffix.

    >>> format_count(6_738_415_616), format_count(999_936), format_count(1.2e22), format_count(512)
    ('6.74B', '1M', '1.20e+22', '512')
    """
    if not math.isfinite(value):
        return str(value)
    value = float(f"{value:.3g}")
    for suffix, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if scale <= abs(value) < 1e15:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.2e}" if abs(value) >= 1e15 else f"{value:.3g}"


def format_bytes(value: float) -> str:
    """Bytes in binary units.

    >>> format_bytes(85899345920)
    '80.00 GiB'
    """
    for suffix, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= scale:
            return f"{value / scale:.2f} {suffix}"
    return f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """A duration in the unit a person would choose.

    >>> format_seconds(10800), format_seconds(42.0), format_seconds(900000)
    ('3.0 h', '42.0 s', '10.4 d')
    """
    for suffix, scale in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= 1.5 * scale or (suffix != "min" and value >= 2 * scale):
            return f"{value / scale:.1f} {suffix}"
    return f"{value:.1f} s"
