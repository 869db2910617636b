"""Images made by one matrix for the rows and one for the columns, where of each row only a few numbers are not 0.

Interpolation, blurring and means look at neighbours: their matrices are bands, read here as such. A line of the new
image is first mixed of lines of the old, in a thread's own memory, and then its pixels of the line's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.arrays import gradient, takes
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.scratch import Scratch
from layernet.backend.compiled.vectors import fma, load, load_first, load_float, load_int, splat, store, store_first
from layernet.backend.reference.resample import ResampleOps

_BLOCK = 4 * LANES


class _Bands(NamedTuple):
    """A matrix: in row i the numbers weight[start[i]] to before weight[start[i + 1]], from column first[i] on."""

    first: Array
    start: Array
    weight: Array


_SLABS = Scratch()


@Kernel
def _resample(
    task, tasks, x, images, height, width, channels, out_height, out_width, row_first, row_start, row_weight,
    column_first, column_start, column_weight, y, lines, pitch,
):  # fmt: skip
    begin, end = split(images * out_height, task, tasks)
    pixel, numbers = channels * 4, width * channels
    line, zero = lines + task * pitch, splat(np.float32(0))
    for row in range(begin, end):
        place = (row % out_height) * 8
        first, last = load_int(row_start + place), load_int(row_start + place + 8)
        source = x + ((row // out_height) * height + load_int(row_first + place)) * numbers * 4
        at = 0
        while at + _BLOCK <= numbers:
            a, b, c, d = zero, zero, zero, zero
            tap = source + at * 4
            for t in range(first, last):
                weight = splat(load_float(row_weight + t * 4))
                a = fma(load(tap), weight, a)
                b = fma(load(tap + LANES * 4), weight, b)
                c = fma(load(tap + LANES * 8), weight, c)
                d = fma(load(tap + LANES * 12), weight, d)
                tap += numbers * 4
            store(line + at * 4, a)
            store(line + at * 4 + LANES * 4, b)
            store(line + at * 4 + LANES * 8, c)
            store(line + at * 4 + LANES * 12, d)
            at += _BLOCK
        while at < numbers:
            a = zero
            for t in range(first, last):
                value = load_first(source + ((t - first) * numbers + at) * 4, numbers - at)
                a = fma(value, splat(load_float(row_weight + t * 4)), a)
            store(line + at * 4, a)
            at += LANES
        target = y + row * out_width * pixel
        stop = target + out_width * pixel
        for column in range(out_width):
            first, last = load_int(column_start + column * 8), load_int(column_start + column * 8 + 8)
            tap = line + load_int(column_first + column * 8) * pixel
            # a vector that reaches into the next pixel is overwritten by it; what it reads there is the line's too
            if last - first == 2:
                left = splat(load_float(column_weight + first * 4))
                right = splat(load_float(column_weight + first * 4 + 4))
                for c in range(0, channels, LANES):
                    a = fma(load(tap + pixel + c * 4), right, load(tap + c * 4) * left)
                    to = target + c * 4
                    if to + LANES * 4 <= stop:
                        store(to, a)
                    else:
                        store_first(to, a, channels - c)
            else:
                for c in range(0, channels, LANES):
                    a = zero
                    for t in range(first, last):
                        a = fma(load(tap + (t - first) * pixel + c * 4), splat(load_float(column_weight + t * 4)), a)
                    to = target + c * 4
                    if to + LANES * 4 <= stop:
                        store(to, a)
                    else:
                        store_first(to, a, channels - c)
            target += pixel


def resample(x: Array, rows: _Bands, columns: _Bands) -> Array:
    """rows x columns^T in every channel."""
    n, height, width, channels = x.shape
    y = np.empty((n, len(rows.first), len(columns.first), channels), dtype=np.float32)
    pitch = -(-(width * channels + LANES) * 4 // 64) * 64
    lines = _SLABS.room(threads() * pitch)
    _resample.launch(
        x=x, images=n, height=height, width=width, channels=channels, out_height=y.shape[1], out_width=y.shape[2],
        row_first=rows.first, row_start=rows.start, row_weight=rows.weight, column_first=columns.first,
        column_start=columns.start, column_weight=columns.weight, y=y, lines=lines, pitch=pitch,
    )  # fmt: skip
    return y


_BANDS: dict[tuple[int, str], tuple[weakref.ref[Array], _Bands]] = {}
"""The bands of matrices, for as long as these live: making them takes longer than use."""


def _remembered(array: Array, use: str, make: Callable[[], _Bands]) -> _Bands:
    """`make()` for this array: made once where nobody can write to it, as to a layer's constants."""
    if array.flags.writeable:
        return make()
    key = id(array), use
    if (known := _BANDS.get(key)) is not None and known[0]() is array:
        return known[1]
    bands = make()
    _BANDS[key] = weakref.ref(array, lambda _: _BANDS.pop(key, None)), bands
    return bands


def _bands(matrix: Array) -> _Bands:
    there = matrix != 0
    first = np.where(there.any(axis=1), there.argmax(axis=1), 0)
    end = np.where(there.any(axis=1), matrix.shape[1] - there[:, ::-1].argmax(axis=1), 0)
    weights = [row[a:b] for row, a, b in zip(matrix, first, end, strict=True)]
    start = np.concatenate([[0], np.cumsum(end - first)])
    return _Bands(first.astype(np.int64), start.astype(np.int64), np.concatenate(weights).astype(np.float32))


def _takers(indices: Array, size: int) -> _Bands:
    return _bands((indices == np.arange(size)[:, None]).astype(np.float32))


class CompiledResampleOps(ResampleOps):
    def resample2d(self, x: Array, rows: Array, columns: Array) -> tuple[Array, Any]:
        if not takes(x, rows, columns) or x.shape[1:3] != (rows.shape[1], columns.shape[1]):
            return super().resample2d(x, rows, columns)
        there = (_remembered(m, "there", partial(_bands, m)) for m in (rows, columns))
        return resample(x, *there), _Resampled((len(x), len(rows), len(columns), x.shape[3]), rows, columns)

    def resample2d_backward(self, dy: Array, res: Any) -> Array:
        if not isinstance(res, _Resampled):
            return super().resample2d_backward(dy, res)
        back = (_remembered(m, "back", partial(_bands, m.T)) for m in (res.rows, res.columns))
        return resample(gradient(dy, res.shape), *back)

    def sample2d_backward(self, dy: Array, res: Any) -> Array:
        shape, rows, columns = res
        if not takes(dy) or dy.shape != (shape[0], len(rows), len(columns), shape[3]):
            return super().sample2d_backward(dy, res)
        axes = zip(shape[1:3], (rows, columns), strict=True)
        return resample(dy, *(_remembered(i, f"takers of {n}", partial(_takers, i, n)) for n, i in axes))


class _Resampled(NamedTuple):
    shape: tuple[int, ...]
    rows: Array
    columns: Array
