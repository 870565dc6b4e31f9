"""Sizes and times in words."""

from __future__ import annotations


def size_text(nbytes: int) -> str:
    """`4.0 KiB`, `1.5 GiB`; `-` for nothing."""
    if nbytes == 0:
        return "-"
    if nbytes < 1024:
        return f"{nbytes} B"
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min((nbytes.bit_length() - 1) // 10, len(units))
    return f"{nbytes / (1 << 10 * power):.1f} {units[power - 1]}"


def time_text(ns: int) -> str:
    """`950 ns`, `94 us`, `17.4 ms`, `2.31 s`: three digits."""
    if ns < 1000:
        return f"{ns} ns"
    for limit, unit in ((10**6, "us"), (10**9, "ms")):
        if ns < limit:
            return f"{ns / limit * 1000:.3g} {unit}"
    return f"{ns / 10**9:.3g} s"
