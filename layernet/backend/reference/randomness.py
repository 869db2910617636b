"""Philox4x64-10 in array code."""

from __future__ import annotations

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_MASK64 = 0xFFFFFFFFFFFFFFFF


class RandomOps(KernelFamily):
    def random_words(self, key: tuple[int, int], draw: int, count: int) -> Array:
        """`count` uniform 64-bit integers (uint64) of the given key and draw number.

        Block b = 1, 2, ... is Philox4x64-10 of the counter (b, draw, 0, 0): the numbering of numpy's bit generator.
        """
        xp = self.xp
        blocks = (count + 3) // 4
        c0 = xp.arange(1, blocks + 1, dtype="uint64")
        c1 = xp.full(blocks, draw, dtype="uint64")
        c2 = xp.zeros(blocks, dtype="uint64")
        c3 = xp.zeros(blocks, dtype="uint64")
        k0, k1 = key
        for _ in range(_ROUNDS):
            high0, low0 = _multiply(c0, _MULTIPLIERS[0])
            high1, low1 = _multiply(c2, _MULTIPLIERS[1])
            c0, c1, c2, c3 = high1 ^ c1 ^ xp.uint64(k0), low1, high0 ^ c3 ^ xp.uint64(k1), low0
            k0, k1 = (k0 + _WEYL[0]) & _MASK64, (k1 + _WEYL[1]) & _MASK64
        return xp.stack([c0, c1, c2, c3], axis=1).reshape(-1)[:count]

    def drop(self, x: Array, mask: Array, scale: float) -> Array:
        """x * mask * scale, for a mask of booleans that broadcasts to x."""
        if mask.shape != x.shape:
            return x * (mask * self.xp.asarray(scale, dtype=x.dtype))
        y = x * mask
        y *= scale
        return y


def _multiply(a: Array, b: int) -> tuple[Array, Array]:
    """High and low 64 bits of the 128-bit product, by schoolbook multiplication of 32-bit halves."""
    a_low, a_high = a & 0xFFFFFFFF, a >> 32
    b_low, b_high = b & 0xFFFFFFFF, b >> 32
    low = a_low * b_low
    middle = a_high * b_low + (low >> 32)
    middle2 = a_low * b_high + (middle & 0xFFFFFFFF)
    high = a_high * b_high + (middle >> 32) + (middle2 >> 32)
    return high, (middle2 << 32) | (low & 0xFFFFFFFF)
