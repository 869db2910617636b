"""Sums of whole arrays; arrays side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class ArithmeticOps(KernelFamily):
    def add(self, a: Array, b: Array) -> Array:
        """a + b of one shape, as a new array."""
        return a + b

    def add_to(self, a: Array, b: Array) -> None:
        """a += b"""
        a += b

    def concat(self, arrays: Sequence[Array]) -> Array:
        """(..., C1), (..., C2), ... -> (..., C1 + C2 + ...): side by side along the last axis."""
        return self.xp.concatenate(arrays, axis=-1)

    def cut(self, a: Array, widths: Sequence[int]) -> list[Array]:
        """(..., C1 + C2 + ...) -> (..., C1), (..., C2), ...: pieces of the last axis, arrays of their own."""
        stops = list(accumulate(widths))
        return [
            self.xp.ascontiguousarray(a[..., stop - width : stop]) for width, stop in zip(widths, stops, strict=True)
        ]
