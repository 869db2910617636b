"""Batch norm in two passes over memory each way, with the shortcut and the ReLU that often follow it.

x is read as rows of columns. Where there are few channels, several rows of x are read as one, so that registers are
full, and what belongs to one channel is added up at the end. Long sums are made of short ones, of BLOCK rows: that
keeps their rounding errors small, and the block in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.lanes import BYTES, LANES
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.vectors import fma, load, load_first, maximum, splat, store, store_first, where_positive

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


@njit(inline="always")
def _add_onto(at, part, left):
    store_first(at, load_first(at, left) + part, left)


@njit(inline="always")
def _add_four(at, a, b, c, d):
    for i, part in enumerate((a, b, c, d)):
        store(at + i * BYTES, load(at + i * BYTES) + part)


@Kernel
def _moments(task, tasks, x, rows, columns, pivot, sums):
    """Per task: sums of x - pivot and of its square over a share of the rows."""
    first, last = split(rows, task, tasks)
    own = sums + task * columns * 8
    own_squares = own + columns * 4
    zero = splat(np.float32(0))
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        c = 0
        while c + _WIDE <= columns:  # side by side, as memory is read
            at = c * 4
            p0, p1 = load(pivot + at), load(pivot + at + BYTES)
            p2, p3 = load(pivot + at + 2 * BYTES), load(pivot + at + 3 * BYTES)
            s0 = s1 = s2 = s3 = q0 = q1 = q2 = q3 = zero
            for row in range(begin, end):
                here = x + row * columns * 4 + at
                a0, a1 = load(here) - p0, load(here + BYTES) - p1
                a2, a3 = load(here + 2 * BYTES) - p2, load(here + 3 * BYTES) - p3
                s0, s1, s2, s3 = s0 + a0, s1 + a1, s2 + a2, s3 + a3
                q0, q1, q2, q3 = fma(a0, a0, q0), fma(a1, a1, q1), fma(a2, a2, q2), fma(a3, a3, q3)
            _add_four(own + at, s0, s1, s2, s3)
            _add_four(own_squares + at, q0, q1, q2, q3)
            c += _WIDE
        while c < columns:
            left = columns - c
            p = load_first(pivot + c * 4, left)
            part = part_squares = zero
            for row in range(begin, end):
                a = load_first(x + (row * columns + c) * 4, left) - p
                part, part_squares = part + a, fma(a, a, part_squares)
            _add_onto(own + c * 4, part, left)
            _add_onto(own_squares + c * 4, part_squares, left)
            c += LANES


@Kernel
def _scale(task, tasks, x, rows, columns, scale, shift, shortcut, relu, y):
    """y = x scale + shift, plus a shortcut, not below 0 where relu is set."""
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


_FROM_Y, _FROM_X = 1, 2
"""Where a ReLU let dy through: where the y that is given is above 0, or where x scale + shift is, computed again."""


@njit(inline="always")
def _let_through(a, dz, y, scale, shift, relu):
    if relu == _FROM_X:
        return where_positive(fma(a, scale, shift), dz, splat(np.float32(0)))
    if relu == _FROM_Y:
        return where_positive(y, dz, splat(np.float32(0)))
    return dz


@njit
def _sums_side_by_side(x, dy, y, begin, end, columns, mean, scale, shift, relu, dz_out, own):
    """`_gradient_sums` of one block for four vectors of columns, as memory is read; all addresses are the columns'."""
    zero = splat(np.float32(0))
    m0, m1, m2, m3 = load(mean), load(mean + BYTES), load(mean + 2 * BYTES), load(mean + 3 * BYTES)
    f0 = f1 = f2 = f3 = t0 = t1 = t2 = t3 = zero
    if relu == _FROM_X:
        f0, f1, f2, f3 = load(scale), load(scale + BYTES), load(scale + 2 * BYTES), load(scale + 3 * BYTES)
        t0, t1, t2, t3 = load(shift), load(shift + BYTES), load(shift + 2 * BYTES), load(shift + 3 * BYTES)
    s0 = s1 = s2 = s3 = d0 = d1 = d2 = d3 = y0 = y1 = y2 = y3 = zero
    for row in range(begin, end):
        at = row * columns * 4
        here, there = x + at, dy + at
        a0, a1, a2, a3 = load(here), load(here + BYTES), load(here + 2 * BYTES), load(here + 3 * BYTES)
        z0, z1, z2, z3 = load(there), load(there + BYTES), load(there + 2 * BYTES), load(there + 3 * BYTES)
        if relu == _FROM_Y:
            mask = y + at
            y0, y1, y2, y3 = load(mask), load(mask + BYTES), load(mask + 2 * BYTES), load(mask + 3 * BYTES)
        z0, z1 = _let_through(a0, z0, y0, f0, t0, relu), _let_through(a1, z1, y1, f1, t1, relu)
        z2, z3 = _let_through(a2, z2, y2, f2, t2, relu), _let_through(a3, z3, y3, f3, t3, relu)
        if relu == _FROM_Y:
            to = dz_out + at
            store(to, z0)
            store(to + BYTES, z1)
            store(to + 2 * BYTES, z2)
            store(to + 3 * BYTES, z3)
        s0, s1, s2, s3 = s0 + z0, s1 + z1, s2 + z2, s3 + z3
        d0, d1, d2, d3 = fma(z0, a0 - m0, d0), fma(z1, a1 - m1, d1), fma(z2, a2 - m2, d2), fma(z3, a3 - m3, d3)
    _add_four(own, s0, s1, s2, s3)
    _add_four(own + columns * 4, d0, d1, d2, d3)


@Kernel
def _gradient_sums(task, tasks, x, dy, y, rows, columns, mean, scale, shift, relu, sums, dz_out):
    """Per task: sums of dz and of dz (x - mean), where dz is what a ReLU lets through of dy, or dy itself.

    With _FROM_Y dz itself is written too: the second pass then reads one array for two.
    """
    first, last = split(rows, task, tasks)
    own = sums + task * columns * 8
    zero = splat(np.float32(0))
    for begin in range(first, last, BLOCK):
        end = min(begin + BLOCK, last)
        whole = columns // _WIDE * _WIDE
        for c in range(0, whole * 4, _WIDE * 4):
            _sums_side_by_side(
                x + c, dy + c, y + c, begin, end, columns, mean + c, scale + c, shift + c, relu, dz_out + c, own + c
            )  # fmt: skip
        for c in range(whole, columns, LANES):
            left = columns - c
            m = load_first(mean + c * 4, left)
            factor = load_first(scale + c * 4, left) if relu == _FROM_X else zero
            term = load_first(shift + c * 4, left) if relu == _FROM_X else zero
            part = part_dot = zero
            for row in range(begin, end):
                at = (row * columns + c) * 4
                a = load_first(x + at, left)
                let = load_first(y + at, left) if relu == _FROM_Y else zero
                dz = _let_through(a, load_first(dy + at, left), let, factor, term, relu)
                if relu == _FROM_Y:
                    store_first(dz_out + at, dz, left)
                part, part_dot = part + dz, fma(dz, a - m, part_dot)
            _add_onto(own + c * 4, part, left)
            _add_onto(own + (columns + c) * 4, part_dot, left)


@Kernel
def _gradient(task, tasks, x, dy, rows, columns, scale, slope, rest, shift, dx):
    """dx = scale dz + slope x + rest, dz being dy, or what a ReLU on x scale + shift lets through of dy."""
    first, last = split(rows, task, tasks)
    zero = splat(np.float32(0))
    for row in range(first, last):
        for c in range(0, columns, LANES):
            left, at = columns - c, (row * columns + c) * 4
            a, dz, factor = load_first(x + at, left), load_first(dy + at, left), load_first(scale + c * 4, left)
            if shift:
                dz = where_positive(fma(a, factor, load_first(shift + c * 4, left)), dz, zero)
            more = fma(a, load_first(slope + c * 4, left), load_first(rest + c * 4, left))
            store_first(dx + at, fma(dz, factor, more), left)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel, in float64.

    The variance is taken around the first row: unlike E[x^2] - E[x]^2, that keeps a small one beside a large mean.
    """
    view = Rows.of(x)
    pivot = x.reshape(-1, x.shape[-1])[0]
    sums = np.zeros((threads(), 2, view.columns), dtype=np.float32)
    _moments.launch(x=x, rows=view.rows, columns=view.columns, pivot=view.spread(pivot), sums=sums)
    count = x.size // x.shape[-1]
    shifted, squares = view.gather(sums[:, 0]) / count, view.gather(sums[:, 1]) / count
    return pivot + shifted, np.maximum(squares - shifted * shifted, 0)


def scale(x: Array, scale: Array, shift: Array, relu: bool = False, shortcut: Array | None = None) -> Array:
    """x scale + shift, with a value of each a channel; plus a shortcut; not below 0 where `relu` is set."""
    view = Rows.of(x)
    y = np.empty_like(x)
    scales, shifts = view.spread(scale), view.spread(shift)
    _scale.launch(
        x=x, rows=view.rows, columns=view.columns, scale=scales, shift=shifts, shortcut=shortcut, relu=int(relu), y=y,
    )  # fmt: skip
    return y


def gradient_sums(
    x: Array, dy: Array, mean: Array, y: Array | None = None, line: tuple[Array, Array] | None = None
) -> tuple[Array, Array, Array]:
    """(sums over each channel of dz, and of dz (x - mean), in float64; dz).

    With y, dz is dy where y > 0, an array of its own. With `line`, the scale and shift that a ReLU's input was made of,
    it is dy where x scale + shift > 0, and not stored: then, and with neither, dy is returned for it.
    """
    view = Rows.of(x)
    sums = np.zeros((threads(), 2, view.columns), dtype=np.float32)
    relu = _FROM_Y if y is not None else _FROM_X if line else 0
    dz = dy if y is None else np.empty_like(dy)
    means, scales, shifts = (view.spread(v) for v in (mean, *(line or (mean, mean))))
    _gradient_sums.launch(
        x=x, dy=dy, y=y, rows=view.rows, columns=view.columns, mean=means, scale=scales, shift=shifts, relu=relu,
        sums=sums, dz_out=dz,
    )  # fmt: skip
    return view.gather(sums[:, 0]), view.gather(sums[:, 1]), dz


def gradient(x: Array, dz: Array, scale: Array, slope: Array, rest: Array, shift: Array | None = None) -> Array:
    """scale dz + slope x + rest; with `shift`, of dz where x scale + shift > 0."""
    view = Rows.of(x)
    dx = np.empty_like(x)
    scales, slopes, rests = (view.spread(v) for v in (scale, slope, rest))
    shifts = None if shift is None else view.spread(shift)
    _gradient.launch(
        x=x, dy=dz, rows=view.rows, columns=view.columns, scale=scales, slope=slopes, rest=rests, shift=shifts, dx=dx,
    )  # fmt: skip
    return dx
