"""Invented data of any shape, to try out a net or a config."""

from __future__ import annotations

import math

import numpy as np

from layernet.backend import Array
from layernet.backend.device import host
from layernet.backend.random import Stream, key_of
from layernet.data.dataset import InMemory

_MOST_CLASSES = 100_000  # they have names, which are made at once


class FakeData(InMemory):
    """`length` random examples of any `shape`, easy enough that a loss falls: x = half noise, half the class's pattern.

    An image shape (H, W, C) gives uint8 pixels like the real image data sets, any other shape float32 in 0..1. Labels
    go round, 0 1 2 ... With `classes` 0 there are ten patterns, and the target is a number for each: float32 (1,), 0 to
    0.9.
    Patterns depend on `classes` and `shape` alone, noise on `seed` too: another seed gives other examples of the same
    problem, fit for validation.
    """

    def __init__(self, shape: list[int], classes: int = 10, length: int = 512, seed: int = 0) -> None:
        if not shape or any(n < 1 for n in shape):
            raise ValueError(f"shape needs sizes of at least 1, got {list(shape)}")
        if not 0 <= classes <= _MOST_CLASSES:
            raise ValueError(f"classes must be from 0 to {_MOST_CLASSES}, got {classes}")
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.shape = tuple(shape)
        self.classes = [str(label) for label in range(classes)] or None
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def load(self) -> tuple[Array, Array]:
        kinds = len(self.classes or range(10))
        labels = np.arange(self.length) % kinds
        x = (self._bytes(self.length, "noise", self.seed) >> 1) + (self._bytes(kinds, "pattern", kinds) >> 1)[labels]
        target = labels if self.classes else (labels[:, np.newaxis] / kinds).astype(np.float32)
        return (x if len(self.shape) == 3 else x / np.float32(255)), target

    def _bytes(self, count: int, *purpose: int | str) -> Array:
        """Uniform bytes (count, *shape), the first ones the same whatever the count."""
        size = count * math.prod(self.shape)
        rng = Stream(key_of("FakeData", *purpose), host().ops)
        return rng.bits((-(-size // 4),)).view(np.uint8)[:size].reshape(count, *self.shape)
