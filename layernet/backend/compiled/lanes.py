"""How many floats a vector has on this processor."""

from __future__ import annotations

import os

import llvmlite.binding as llvm
from numba.extending import register_jitable

from layernet.errors import DeviceError


def _widest() -> int:
    """How many floats a vector register of this processor holds. LAYERNET_LANES sets it, as tests do."""
    if forced := os.environ.get("LAYERNET_LANES"):
        if forced not in ("4", "8", "16"):
            raise DeviceError(f"LAYERNET_LANES must be 4, 8 or 16, got {forced!r}", "leave it out for the widest")
        return int(forced)
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") and features.get("fma") else 4


LANES = _widest()
"""Floats in a vector: 16 with AVX-512, 8 with AVX2 and FMA, otherwise 4, which every processor has some form of."""

BYTES = 4 * LANES
"""Bytes in a vector."""


@register_jitable
def vectors_of(numbers: int) -> int:
    """How many vectors so many floats take, the last perhaps not full; for kernels, and for what launches them."""
    return (numbers + LANES - 1) // LANES
