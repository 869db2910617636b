"""Philox4x64-10, the same numbers as the reference's, blocks spread over the threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from layernet.backend import Array
from layernet.backend.compiled.arrays import takes
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.vectors import load, load_float, splat, store, store_int, where_byte
from layernet.backend.reference.randomness import _MULTIPLIERS, _WEYL, RandomOps

_FEW = 1 << 12  # fewer are drawn before a second thread has woken up


def _signed(word: int) -> int:
    return word - (word >> 63 << 64)


_M0, _M1 = map(_signed, _MULTIPLIERS)
_W0, _W1 = map(_signed, _WEYL)


@intrinsic
def _multiply(typingctx, a, b):
    """(high, low) 64 bits of the product of words."""

    def generate(context, builder, signature, arguments):
        wide = ir.IntType(128)
        a, b = (builder.zext(word, wide) for word in arguments)
        product = builder.mul(a, b)
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        return context.make_tuple(builder, signature.return_type, [high, builder.trunc(product, ir.IntType(64))])

    return types.UniTuple(types.int64, 2)(types.int64, types.int64), generate


@njit(inline="always")
def _round(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> Any:
    high0, low0 = _multiply(c0, _M0)
    high1, low1 = _multiply(c2, _M1)
    return high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0


@Kernel
def _words(task, tasks, key0, key1, draw, blocks, words):
    first, last = split(blocks, task, tasks)
    for block in range(first, last):
        c0, c1, c2, c3 = block + 1, draw, 0, 0
        k0, k1 = key0, key1
        for _ in range(10):
            c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
            k0, k1 = k0 + _W0, k1 + _W1
        at = words + block * 32
        store_int(at, c0)
        store_int(at + 8, c1)
        store_int(at + 16, c2)
        store_int(at + 24, c3)


@Kernel
def _drop(task, tasks, x, mask, vectors, constants, y):
    """y = x scale where the byte is 1, x 0 where it is 0: for whole vectors."""
    first, last = split(vectors, task, tasks)
    scale = splat(load_float(constants))
    for v in range(first, last):
        at = v * LANES
        store(y + at * 4, load(x + at * 4) * where_byte(mask + at, 1, scale))


class CompiledRandomOps(RandomOps):
    def random_words(self, key: tuple[int, int], draw: int, count: int) -> Array:
        blocks = (count + 3) // 4
        words = np.empty(4 * blocks, dtype=np.uint64)
        tasks = 1 if count < _FEW else threads()
        _words.launch(key0=_signed(key[0]), key1=_signed(key[1]), draw=draw, blocks=blocks, words=words, tasks=tasks)
        return words[:count]

    def drop(self, x: Array, mask: Array, scale: float) -> Array:
        if not takes(x) or mask.dtype != np.bool_ or mask.shape != x.shape or not mask.flags.c_contiguous:
            return super().drop(x, mask, scale)
        y, vectors = np.empty_like(x), x.size // LANES
        _drop.launch(x=x, mask=mask, vectors=vectors, constants=np.array([scale], dtype=np.float32), y=y)
        if rest := x.size - vectors * LANES:  # masks are read a vector at a time, and no further than they go
            y.reshape(-1)[-rest:] = super().drop(x.reshape(-1)[-rest:], mask.reshape(-1)[-rest:], scale)
        return y
