"""Which arrays the compiled kernels take: they read memory by address, so what does not fit must be kept from them."""

from __future__ import annotations

import numpy as np

from layernet.backend import Array, Shape

_FLOAT32 = np.dtype(np.float32)


def takes(*arrays: Array | None) -> bool:
    """Whether all are float32, in C order and not empty; None, for what was left out, passes."""
    for a in arrays:  # asked of every array of every call: all() would take twice as long
        if a is not None and not (a.dtype == _FLOAT32 and a.flags.c_contiguous and a.size > 0):
            return False
    return True


def by_channel(channels: int, *vectors: Array | None) -> bool:
    """Whether each that is given has one number a channel."""
    return all(v is None or v.shape == (channels,) for v in vectors)


def gradient(dy: Array, shape: Shape) -> Array:
    """dy as kernels read it. Raises ValueError where its shape is not that of the output."""
    if dy.shape != shape:
        raise ValueError(f"a gradient of shape {dy.shape} for an output of shape {shape}")
    return np.ascontiguousarray(dy, dtype=np.float32)
