"""Batch norm in two passes over memory each way, with the shortcut and the ReLU that often follow it.

x is read as rows of columns. Where there are few channels, several rows of x are read as one, so that registers are
full, and what belongs to one channel is added up at the end. Long sums are made of short ones, of BLOCK rows: that
keeps their rounding errors small, and the block in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.launch import Kernel, launch, split, threads, unpack
from layernet.backend.compiled.simd import (
    LANES,
    fma,
    load_first,
    maximum,
    splat,
    store_first,
    where_positive,
)

BLOCK = 128
_WIDE = 4 * LANES


@dataclass(frozen=True)
class Rows:
    """How (..., C) is read: `rows` of `columns`, each row `fold` of C."""

    rows: int
    columns: int
    fold: int

    @classmethod
    def of(cls, x: Array) -> Rows:
        channels = x.shape[-1]
        rows = x.size // channels
        fold = next(n for n in range(max(1, _WIDE // channels), 0, -1) if rows % n == 0)
        return cls(rows // fold, channels * fold, fold)

    def spread(self, values: Array) -> Array:
        """A value a channel, as a value a column."""
        return np.ascontiguousarray(np.tile(values, self.fold), dtype=np.float32)

    def gather(self, sums: Array) -> Array:
        """Sums (tasks, columns) as a sum a channel."""
        return sums.reshape(-1, self.columns // self.fold).sum(axis=0, dtype=np.float64)


@Kernel
def _moments(arguments, task):
    """Per task: sums of x - pivot and of its square over a share of the rows."""
    (x, rows, columns, pivot, sums, tasks) = unpack(arguments, 6)
    first, last = split(rows, task, tasks)
    own = sums + task * columns * 8
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        for c in range(0, columns, LANES):
            left = columns - c
            p = load_first(pivot + c * 4, left)
            total, squares = load_first(own + c * 4, left), load_first(own + (columns + c) * 4, left)
            part = splat(np.float32(0))
            part_squares = part
            for row in range(begin, end):
                a = load_first(x + (row * columns + c) * 4, left) - p
                part, part_squares = part + a, fma(a, a, part_squares)
            store_first(own + c * 4, total + part, left)
            store_first(own + (columns + c) * 4, squares + part_squares, left)


@Kernel
def _scale(arguments, task):
    """y = x scale + shift, plus a shortcut, not below 0 where relu is set."""
    (x, rows, columns, scale, shift, shortcut, relu, y, tasks) = unpack(arguments, 9)
    first, last = split(rows, task, tasks)
    floor = splat(np.float32(0)) if relu else splat(np.float32(-np.inf))
    for row in range(first, last):
        at = row * columns * 4
        for c in range(0, columns, LANES):
            left = columns - c
            value = fma(
                load_first(x + at + c * 4, left), load_first(scale + c * 4, left), load_first(shift + c * 4, left)
            )
            if shortcut:
                value = value + load_first(shortcut + at + c * 4, left)
            store_first(y + at + c * 4, maximum(value, floor), left)


@Kernel
def _gradient_sums(arguments, task):
    """Per task: sums of dz and of dz (x - mean), where dz = dy where y > 0 (mask: 0 none, else y's address).

    dz itself is written too where there is a mask: the second pass then reads one array for two.
    """
    (x, dy, mask, rows, columns, mean, sums, dz_out, tasks) = unpack(arguments, 9)
    first, last = split(rows, task, tasks)
    own = sums + task * columns * 8
    zero = splat(np.float32(0))
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        for c in range(0, columns, LANES):
            left = columns - c
            m = load_first(mean + c * 4, left)
            total, dot = load_first(own + c * 4, left), load_first(own + (columns + c) * 4, left)
            part, part_dot = zero, zero
            for row in range(begin, end):
                at = (row * columns + c) * 4
                dz = load_first(dy + at, left)
                if mask:
                    dz = where_positive(load_first(mask + at, left), dz, zero)
                    store_first(dz_out + at, dz, left)
                part, part_dot = part + dz, fma(dz, load_first(x + at, left) - m, part_dot)
            store_first(own + c * 4, total + part, left)
            store_first(own + (columns + c) * 4, dot + part_dot, left)


@Kernel
def _gradient(arguments, task):
    """dx = scale dz + slope x + shift; dx may be dz."""
    (x, dz, rows, columns, scale, slope, shift, dx, tasks) = unpack(arguments, 9)
    first, last = split(rows, task, tasks)
    for row in range(first, last):
        for c in range(0, columns, LANES):
            left, at = columns - c, (row * columns + c) * 4
            rest = fma(load_first(x + at, left), load_first(slope + c * 4, left), load_first(shift + c * 4, left))
            store_first(dx + at, fma(load_first(dz + at, left), load_first(scale + c * 4, left), rest), left)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel, in float64.

    The variance is taken around the first row: unlike E[x^2] - E[x]^2, that keeps a small one beside a large mean.
    """
    view = Rows.of(x)
    pivot = x.reshape(-1, x.shape[-1])[0]
    sums = np.zeros((threads(), 2, view.columns), dtype=np.float32)
    launch(_moments, x, view.rows, view.columns, view.spread(pivot), sums, threads())
    count = x.size // x.shape[-1]
    shifted, squares = view.gather(sums[:, 0]) / count, view.gather(sums[:, 1]) / count
    return pivot + shifted, np.maximum(squares - shifted * shifted, 0)


def scale(x: Array, scale: Array, shift: Array, relu: bool = False, shortcut: Array | None = None) -> Array:
    """x scale + shift, with a value of each a channel; plus a shortcut; not below 0 where `relu` is set."""
    view = Rows.of(x)
    y = np.empty_like(x)
    scales, shifts = view.spread(scale), view.spread(shift)
    launch(
        _scale, x, view.rows, view.columns, scales, shifts,
        shortcut, int(relu), y, threads(),
    )  # fmt: skip
    return y


def gradient_sums(x: Array, dy: Array, y: Array | None, mean: Array) -> tuple[Array, Array, Array]:
    """(sums over each channel of dz, and of dz (x - mean), in float64; dz): where y is given, dz is dy where y > 0.

    dz is an array of its own then, and dy itself otherwise.
    """
    view = Rows.of(x)
    sums = np.zeros((threads(), 2, view.columns), dtype=np.float32)
    means = view.spread(mean)
    dz = dy if y is None else np.empty_like(dy)
    launch(
        _gradient_sums, x, dy, y, view.rows, view.columns,
        means, sums, dz, threads(),
    )  # fmt: skip
    return view.gather(sums[:, 0]), view.gather(sums[:, 1]), dz


def gradient(x: Array, dz: Array, scale: Array, slope: Array, shift: Array, overwrite: bool = False) -> Array:
    """scale dz + slope x + shift, in the place of dz where that may be."""
    view = Rows.of(x)
    dx = dz if overwrite else np.empty_like(x)
    vectors: list[Any] = [view.spread(v) for v in (scale, slope, shift)]
    launch(_gradient, x, dz, view.rows, view.columns, *vectors, dx, threads())
    return dx
