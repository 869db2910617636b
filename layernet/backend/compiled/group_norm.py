"""Group norm, one example after the other: small enough, mostly, to stay in the cache for the passes that follow.

An example is read as rows of columns, as batch norm reads a batch (norm.py). What belongs to a group stands once for
each of its channels, so that everything after the sums over a group goes by vectors of channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.arrays import by_channel, gradient, takes
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.norm import BLOCK, Rows
from layernet.backend.compiled.scratch import Scratch
from layernet.backend.compiled.vectors import fma, load_first, load_float, splat, square_root, store_first, total
from layernet.backend.reference.norm import NormOps

_ZERO, _ONE = np.float32(0), np.float32(1)
_FORWARD, _BACKWARD = 4, 7
"""Vectors of columns that a task works with."""


@njit(inline="always")
def _fold(columns: int, count: int, channels: int, factor: Any, result: int) -> None:
    """result[c] = factor times the sum of the columns of channel c."""
    for c in range(0, channels, LANES):
        left = channels - c
        part = splat(_ZERO)
        for column in range(c, count, channels):
            part = part + load_first(columns + column * 4, left)
        store_first(result + c * 4, part * factor, left)


@njit(inline="always")
def _over_groups(values: int, channels: int, width: int) -> None:
    """Every channel gets the sum over its group of `width` channels."""
    if width == 1:
        return
    for group in range(values, values + channels * 4, width * 4):
        part = splat(_ZERO)
        for c in range(0, width, LANES):
            part = part + load_first(group + c * 4, width - c)
        whole = splat(total(part))
        for c in range(0, width, LANES):
            store_first(group + c * 4, whole, width - c)


@njit(inline="always")
def _spread(values: int, channels: int, columns: int, count: int) -> None:
    """Every column gets its channel's number."""
    for column in range(0, count, channels):
        for c in range(0, channels, LANES):
            store_first(columns + (column + c) * 4, load_first(values + c * 4, channels - c), channels - c)


@njit(inline="always")
def _clear(at: int, count: int) -> None:
    for c in range(0, count, LANES):
        store_first(at + c * 4, splat(_ZERO), count - c)


_SLABS = Scratch()


@Kernel
def _group_norm(
    task, tasks, x, examples, rows, columns, channels, width, eps, weight, bias, means, variances, rstds, y, slabs,
):  # fmt: skip
    """y = (x - mean) rstd weight + bias; mean, variance and rstd of its group for each example and channel."""
    first, last = split(examples, task, tasks)
    sums = slabs + task * 4 * columns * 4
    middles, scales, shifts = sums + columns * 4, sums + columns * 8, sums + columns * 12
    least, zero, one = splat(load_float(eps)), splat(_ZERO), splat(_ONE)
    share = splat(_ONE / (np.float32(rows) * np.float32(columns // channels) * np.float32(width)))
    _clear(shifts, columns)
    if bias:
        _spread(bias, channels, shifts, columns)
    for example in range(first, last):
        source, target = x + example * rows * columns * 4, y + example * rows * columns * 4
        own = example * channels * 4
        mean, variance, rstd = means + own, variances + own, rstds + own
        _clear(sums, columns)
        for begin in range(0, rows, BLOCK):
            end = min(begin + BLOCK, rows)
            for c in range(0, columns, LANES):
                left = columns - c
                part, other = zero, zero
                for row in range(begin, end - 1, 2):
                    at = source + (row * columns + c) * 4
                    part, other = part + load_first(at, left), other + load_first(at + columns * 4, left)
                if (end - begin) % 2:
                    part = part + load_first(source + ((end - 1) * columns + c) * 4, left)
                store_first(sums + c * 4, load_first(sums + c * 4, left) + (part + other), left)
        _fold(sums, columns, channels, share, mean)
        _over_groups(mean, channels, width)
        _spread(mean, channels, middles, columns)
        _clear(sums, columns)
        for begin in range(0, rows, BLOCK):
            end = min(begin + BLOCK, rows)
            for c in range(0, columns, LANES):
                left = columns - c
                middle, part, other = load_first(middles + c * 4, left), zero, zero
                for row in range(begin, end - 1, 2):
                    at = source + (row * columns + c) * 4
                    a, b = load_first(at, left) - middle, load_first(at + columns * 4, left) - middle
                    part, other = fma(a, a, part), fma(b, b, other)
                if (end - begin) % 2:
                    a = load_first(source + ((end - 1) * columns + c) * 4, left) - middle
                    part = fma(a, a, part)
                store_first(sums + c * 4, load_first(sums + c * 4, left) + (part + other), left)
        _fold(sums, columns, channels, share, variance)
        _over_groups(variance, channels, width)
        for c in range(0, channels, LANES):
            left = channels - c
            factor = one / square_root(load_first(variance + c * 4, left) + least)
            store_first(rstd + c * 4, factor, left)
            store_first(scales + c * 4, factor * load_first(weight + c * 4, left) if weight else factor, left)
        for column in range(channels, columns, channels):
            _spread(scales, channels, scales + column * 4, channels)
        for begin in range(0, rows, BLOCK):
            end = min(begin + BLOCK, rows)
            for c in range(0, columns, LANES):
                left = columns - c
                middle, scale = load_first(middles + c * 4, left), load_first(scales + c * 4, left)
                shift = load_first(shifts + c * 4, left)
                for row in range(begin, end):
                    at = (row * columns + c) * 4
                    store_first(target + at, fma(load_first(source + at, left) - middle, scale, shift), left)


@Kernel
def _group_norm_gradient(
    task, tasks, x, dy, examples, rows, columns, channels, width, weight, means, rstds, dx, sums, dots, slabs,
):  # fmt: skip
    """dx = rstd (g - mean g - xhat mean(g xhat)), g = dy weight; the sums of dy and of dy xhat by example, channel."""
    first, last = split(examples, task, tasks)
    part_sums = slabs + task * 7 * columns * 4
    part_dots, middles, factors = part_sums + columns * 4, part_sums + columns * 8, part_sums + columns * 12
    scales, slopes, shifts = part_sums + columns * 16, part_sums + columns * 20, part_sums + columns * 24
    zero, one = splat(_ZERO), splat(_ONE)
    share = splat(-_ONE / (np.float32(rows) * np.float32(columns // channels) * np.float32(width)))
    for example in range(first, last):
        whole = example * rows * columns * 4
        own = example * channels * 4
        mean, rstd, own_sums, own_dots = means + own, rstds + own, sums + own, dots + own
        _clear(part_sums, 2 * columns)
        _spread(mean, channels, middles, columns)
        _spread(rstd, channels, factors, columns)
        for begin in range(0, rows, BLOCK):
            end = min(begin + BLOCK, rows)
            for c in range(0, columns, LANES):
                left = columns - c
                middle, factor = load_first(middles + c * 4, left), load_first(factors + c * 4, left)
                part, dot = zero, zero
                for row in range(begin, end):
                    at = whole + (row * columns + c) * 4
                    d = load_first(dy + at, left)
                    part, dot = part + d, fma(d, (load_first(x + at, left) - middle) * factor, dot)
                store_first(part_sums + c * 4, load_first(part_sums + c * 4, left) + part, left)
                store_first(part_dots + c * 4, load_first(part_dots + c * 4, left) + dot, left)
        _fold(part_sums, columns, channels, one, own_sums)
        _fold(part_dots, columns, channels, one, own_dots)
        if dx:
            for c in range(0, channels, LANES):
                left = channels - c
                gain = load_first(weight + c * 4, left) if weight else one
                store_first(scales + c * 4, gain * load_first(rstd + c * 4, left), left)
                store_first(slopes + c * 4, load_first(own_dots + c * 4, left) * gain * share, left)
                store_first(shifts + c * 4, load_first(own_sums + c * 4, left) * gain * share, left)
            _over_groups(slopes, channels, width)
            _over_groups(shifts, channels, width)
            for c in range(0, channels, LANES):
                left, factor = channels - c, load_first(rstd + c * 4, channels - c)
                store_first(slopes + c * 4, load_first(slopes + c * 4, left) * factor, left)
                store_first(shifts + c * 4, load_first(shifts + c * 4, left) * factor, left)
            for column in range(channels, columns, channels):
                _spread(scales, channels, scales + column * 4, channels)
                _spread(slopes, channels, slopes + column * 4, channels)
                _spread(shifts, channels, shifts + column * 4, channels)
            for begin in range(0, rows, BLOCK):
                end = min(begin + BLOCK, rows)
                for c in range(0, columns, LANES):
                    left = columns - c
                    middle, factor = load_first(middles + c * 4, left), load_first(factors + c * 4, left)
                    scale, slope = load_first(scales + c * 4, left), load_first(slopes + c * 4, left)
                    shift = load_first(shifts + c * 4, left)
                    for row in range(begin, end):
                        at = whole + (row * columns + c) * 4
                        rest = fma((load_first(x + at, left) - middle) * factor, slope, shift)
                        store_first(dx + at, fma(load_first(dy + at, left), scale, rest), left)


class _Kept(NamedTuple):
    """What group norm keeps: its input, and for each example and channel its group's mean and 1 / deviation."""

    x: Array
    means: Array
    rstds: Array
    weight: Array | None
    width: int


class CompiledGroupNormOps(NormOps):
    def group_norm(
        self, x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        channels = x.shape[-1]
        if x.ndim < 2 or channels % groups or not takes(x, weight, bias) or not by_channel(channels, weight, bias):
            return super().group_norm(x, groups, weight, bias, eps)
        view, width, y = Rows.of(x[0]) if x.ndim > 2 else Rows(1, channels, 1), channels // groups, np.empty_like(x)
        means, variances, rstds = np.empty((3, len(x), channels), dtype=np.float32)
        slabs = _SLABS.room(threads() * _FORWARD * view.columns * 4)
        _group_norm.launch(
            x=x, examples=len(x), rows=view.rows, columns=view.columns, channels=channels, width=width,
            eps=np.array([eps], dtype=np.float32), weight=weight, bias=bias, means=means, variances=variances,
            rstds=rstds, y=y, slabs=slabs,
        )  # fmt: skip
        if not np.isfinite(variances).all():  # squares too large for float32
            return super().group_norm(x, groups, weight, bias, eps)
        return y, means[:, ::width], variances[:, ::width], _Kept(x, means, rstds, weight, width)

    def group_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        if not isinstance(res, _Kept):
            return super().group_norm_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        x, means, rstds, weight, width = res
        dy, channels = gradient(dy, x.shape), x.shape[-1]
        view = Rows.of(x[0]) if x.ndim > 2 else Rows(1, channels, 1)
        dx = np.empty_like(x) if need_dx else None
        sums, dots = np.empty((2, len(x), channels), dtype=np.float32)
        slabs = _SLABS.room(threads() * _BACKWARD * view.columns * 4)
        _group_norm_gradient.launch(
            x=x, dy=dy, examples=len(x), rows=view.rows, columns=view.columns, channels=channels, width=width,
            weight=weight, means=means, rstds=rstds, dx=dx, sums=sums, dots=dots, slabs=slabs,
        )  # fmt: skip
        dw, db = (part.sum(axis=0, dtype=np.float64).astype(np.float32) for part in (dots, sums))
        return dx, dw, db
