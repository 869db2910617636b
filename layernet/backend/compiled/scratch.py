"""Memory that kernels work in, kept from launch to launch: to ask for it anew each time would take longer than many do.

A piece is a thread's from `room` until it asks the same Scratch again. What one module uses is a Scratch of its own,
beside its kernels; what several share, so that a net does not hold it several times, stands here: none of them calls
another, or anything else that might ask for the same, between `room` and the last launch that uses what it got.
"""

from __future__ import annotations

import threading

import numpy as np

from layernet.backend.compiled.launch import address

_local = threading.local()


class Scratch:
    """A piece of memory for each thread, as large as the largest it was asked for."""

    def room(self, size: int) -> int:
        """The address of `size` bytes, on a cache line, with room behind."""
        held = _local.__dict__.setdefault("held", {})
        most, start, _ = held.get(self, (0, 0, None))
        if most < size:
            slab = np.zeros(size + 512, dtype=np.uint8)
            start = -(-address(slab) // 64) * 64
            held[self] = (size, start, slab)
        return int(start)


def forget() -> None:
    """Give back all that this thread holds."""
    _local.__dict__.clear()


SLABS = Scratch()
"""What each task of a convolution works in, of whichever way: direct, in groups, Winograd's."""

WEIGHTS = Scratch()
"""Weights laid as kernels read them: transposed (pack.py), or the taps of a phase (direct.py)."""

FREQUENCIES = Scratch()
"""Filters as Winograd's products read them, or their gradients."""

TILES = Scratch()
"""Transformed tiles of Winograd's ways that keep many at a time."""

PARTS = Scratch()
"""Gradients of filters, one for each task, that are added in order at the end."""
