"""Pooling beyond the first maximum of a window: the pixel furthest from 0, ties that all win, windows of all sizes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.compiled.arrays import gradient, takes
from layernet.backend.compiled.geometry import Covers, Places, covers_of, geometry, table
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split
from layernet.backend.compiled.pool import (
    MOST_TAPS,
    find_peaks,
    maximum,
    maximum_at,
    maximum_gradient,
    out_shape,
    peaks_gradient,
)
from layernet.backend.compiled.vectors import (
    absolute,
    load_first,
    load_int,
    splat,
    store_bytes,
    store_first,
    where_beats,
    where_equal,
)
from layernet.backend.reference.pool import PoolOps
from layernet.backend.window import Window


@Kernel
def _furthest(
    task, tasks, x, images, height, width, channels, out_height, out_width, down, right, kernel_height, kernel_width,
    row_pixel, row_first, row_end, column_pixel, column_first, column_end, y, winners, pitch,
):  # fmt: skip
    """y, the pixel furthest from 0, and by `winners` (where not 0) the number of the first tap that equals it."""
    begin, end = split(images * out_height, task, tasks)
    pixel = channels * 4
    line_step, tap_step = down * width * pixel, right * pixel
    zero, none = splat(np.float32(0)), splat(np.float32(255))
    for row in range(begin, end):
        place = (row % out_height) * 8
        first_line, end_line = load_int(row_first + place), load_int(row_end + place)
        image = x + ((row // out_height) * height + load_int(row_pixel + place)) * width * pixel
        for column in range(out_width):
            first_tap, end_tap = load_int(column_first + column * 8), load_int(column_end + column * 8)
            corner = image + load_int(column_pixel + column * 8) * pixel
            at = row * out_width + column
            for c in range(0, channels, LANES):
                left = channels - c
                best = zero
                for i in range(first_line, end_line):
                    line = corner + i * line_step + c * 4
                    for j in range(first_tap, end_tap):
                        value = load_first(line + j * tap_step, left)
                        best = where_beats(absolute(best), absolute(value), best, value)
                store_first(y + at * pixel + c * 4, best, left)
                if winners:
                    winner = none
                    for i in range(end_line - 1, first_line - 1, -1):  # backwards: the first one stays
                        line = corner + i * line_step + c * 4
                        for j in range(end_tap - 1, first_tap - 1, -1):
                            number = splat(np.float32(i * kernel_width + j))
                            winner = where_equal(load_first(line + j * tap_step, left), best, number, winner)
                    store_bytes(winners + at * pitch + c, winner)


@Kernel
def _equals_gradient(
    task, tasks, dy, x, y, images, height, width, channels, out_height, out_width, row_first, row_place, column_first,
    column_place, dx,
):  # fmt: skip
    """dx: of each window over a pixel, dy where the pixel equals its peak."""
    begin, end = split(images * height, task, tasks)
    zero = splat(np.float32(0))
    for row in range(begin, end):
        image = row // height * out_height
        lines = row_first + row % height * 8
        first_line, end_line = load_int(lines), load_int(lines + 8)
        for column in range(width):
            first, last = load_int(column_first + column * 8), load_int(column_first + column * 8 + 8)
            here = (row * width + column) * channels * 4
            for c in range(0, channels, LANES):
                left = channels - c
                value, total = load_first(x + here + c * 4, left), zero
                for i in range(first_line, end_line):
                    line = (image + load_int(row_place + i * 8)) * out_width
                    for j in range(first, last):
                        at = ((line + load_int(column_place + j * 8)) * channels + c) * 4
                        won = where_equal(value, load_first(y + at, left), load_first(dy + at, left), zero)
                        total = total + won
                store_first(dx + here + c * 4, total, left)


def equals_gradient(dy: Array, x: Array, y: Array, window: Window) -> Array:
    """dx: every pixel that equals its window's peak gets all of dy."""
    _, _, rows, columns = geometry(window, (x.shape[1], x.shape[2]))
    dx = np.empty(x.shape, dtype=np.float32)
    _equals_gradient.launch(
        dy=dy, x=x, y=y, images=x.shape[0], height=x.shape[1], width=x.shape[2], channels=x.shape[3],
        out_height=dy.shape[1], out_width=dy.shape[2], row_first=rows.first, row_place=rows.place,
        column_first=columns.first, column_place=columns.place, dx=dx,
    )  # fmt: skip
    return dx


class _Windows(NamedTuple):
    """Windows along one axis as `maximum_at` goes by them, and the pixels of the largest."""

    places: Places
    covers: Covers
    most: int


@lru_cache(maxsize=256)
def _windows(spans: tuple[tuple[int, int], ...], size: int) -> _Windows:
    """Of (first pixel, last + 1) for each."""
    first, end = np.array(spans, dtype=np.int64).T
    most = int((end - first).max())
    at = first[:, None] + np.arange(most)
    return _Windows(
        Places(*table(first, np.zeros_like(first), end - first)), covers_of(at, at < end[:, None], size), most
    )


@lru_cache(maxsize=256)
def _every_pixel(size: int) -> _Windows:
    return _windows(tuple((i, i + 1) for i in range(size)), size)


class CompiledPeakOps(PoolOps):
    def peak_pool2d(self, x: Array, window: Window, peak: str, ties: str) -> tuple[Array, Any]:
        if not takes(x) or window.kernel[0] * window.kernel[1] > MOST_TAPS:
            return super().peak_pool2d(x, window, peak, ties)
        keep = ties == "first"
        if peak == "max":
            y, winners = maximum(x, window, keep)
        else:
            rows, columns, _, _ = geometry(window, (x.shape[1], x.shape[2]))
            y, winners = find_peaks(_furthest, x, rows, columns, window.kernel, window.dilation, keep)
        return y, _First(winners, x.shape, window) if keep else _Every(x, y, window)

    def peak_pool2d_backward(self, dy: Array, res: Any) -> Array:
        if isinstance(res, _First):
            return maximum_gradient(gradient(dy, out_shape(res.shape, res.window)), *res)
        if isinstance(res, _Every):
            return equals_gradient(gradient(dy, res.y.shape), *res)
        return super().peak_pool2d_backward(dy, res)

    def span_max_pool2d(self, x: Array, rows: Any, columns: Any) -> tuple[Array, Any]:
        if not takes(x):
            return super().span_max_pool2d(x, rows, columns)
        _, height, width, _ = x.shape
        down, across = _windows(rows, height), _windows(columns, width)
        if down.most * across.most <= MOST_TAPS:
            steps = [(down, across)]
        elif max(down.most, across.most) <= MOST_TAPS:
            # a window's first maximum, in reading order, is the first of its line in the first line that has it
            steps = [(_every_pixel(height), across), (down, _every_pixel(len(columns)))]
        else:
            return super().span_max_pool2d(x, rows, columns)
        won = []
        for down, across in steps:
            y, winners = maximum_at(x, down.places, across.places, (down.most, across.most))
            won.append((winners, x.shape, down.covers, across.covers, across.most))
            x = y
        return x, _Steps(x.shape, won)

    def span_max_pool2d_backward(self, dy: Array, res: Any) -> Array:
        if not isinstance(res, _Steps):
            return super().span_max_pool2d_backward(dy, res)
        d = gradient(dy, res.shape)
        for step in reversed(res.won):
            d = peaks_gradient(d, *step)
        return d


class _First(NamedTuple):
    winners: Array
    shape: Shape
    window: Window


class _Every(NamedTuple):
    x: Array
    y: Array
    window: Window


class _Steps(NamedTuple):
    shape: Shape
    won: list[Any]
