"""Randomness as a pure function of a key: Philox4x64-10 counters, the same numbers on every device.

No generator state exists anywhere: whoever names the same key draws the same numbers again. Resuming a run is exact by
construction, and a recomputed layer sees its own dropout mask.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

from layernet.backend import Array, Shape

if TYPE_CHECKING:
    from layernet.backend.ops import Ops

Key = tuple[int, int]


def key_of(*parts: int | str) -> Key:
    """128 bits that depend on every part and on nothing else (never on Python's randomised hash)."""
    text = "\x1f".join(f"{type(part).__name__}={part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


class Stream:
    """The random numbers of one key. The k-th draw from a stream is a function of (key, k, shape) alone.

    `dtype` is the type of `uniform` and `normal`; float32 and float64 draws of one key agree to float32 precision.
    """

    def __init__(self, key: Key, ops: Ops, dtype: str = "float32") -> None:
        self._key = key
        self._ops = ops
        self._dtype = dtype
        self._draws = 0

    def bits(self, shape: Shape) -> Array:
        """Uniform 32-bit integers (uint32)."""
        words = self._words((math.prod(shape) + 1) // 2)
        return words.view("uint32")[: math.prod(shape)].reshape(shape)

    def uniform(self, shape: Shape, low: float = 0.0, high: float = 1.0) -> Array:
        """Uniform on the open interval (low, high)."""
        bits = self.bits(shape)
        if self._dtype == "float64":
            unit = (bits.astype("float64") + 0.5) * 2.0**-32
        else:  # 23 bits and a half: exact in float32, never 0 and never 1
            unit = ((bits >> 9).astype(self._dtype) + 0.5) * 2.0**-23
        return unit * (high - low) + low if (low, high) != (0.0, 1.0) else unit

    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0) -> Array:
        """Normal with the given mean and standard deviation, by the Box-Muller transform."""
        xp = self._ops.xp
        count = math.prod(shape)
        half = (count + 1) // 2
        unit = (self.bits((2, half)).astype("float64") + 0.5) * 2.0**-32
        radius = xp.sqrt(-2.0 * xp.log(unit[0]))
        angle = (2.0 * math.pi) * unit[1]
        pairs = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])
        return (pairs[:count].reshape(shape) * std + mean).astype(self._dtype)

    def keep_mask(self, shape: Shape, keep: float) -> Array:
        """Booleans, each True with probability `keep`: thresholds on integers, so bit-equal on every device."""
        if not 0.0 <= keep <= 1.0:
            raise ValueError(f"keep must be a probability, got {keep}")
        if keep == 1.0:
            return self._ops.xp.ones(shape, dtype=bool)
        return self.bits(shape) < int(keep * 2.0**32)

    def integers(self, low: int, high: int, shape: Shape) -> Array:
        """Integers (int64) in low <= i < high, for ranges far below 2**32."""
        if not low < high:
            raise ValueError(f"integers needs low < high, got {low} and {high}")
        scaled = (self.bits(shape).astype("uint64") * (high - low)) >> 32
        return scaled.astype("int64") + low

    def permutation(self, n: int) -> Array:
        """The integers 0..n-1 in random order."""
        return self._ops.xp.argsort(self._words(n), kind="stable")

    def _words(self, count: int) -> Array:
        words = self._ops.random_words(self._key, self._draws, count)
        self._draws += 1
        return words
