"""Sums of whole arrays."""

from __future__ import annotations

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class ArithmeticOps(KernelFamily):
    def add(self, a: Array, b: Array) -> Array:
        """a + b of one shape, as a new array."""
        return a + b

    def add_to(self, a: Array, b: Array) -> None:
        """a += b"""
        a += b
