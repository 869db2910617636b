"""Depthwise convolution: every channel with a filter of its own, a vector of channels at a time.

Too little arithmetic for matrix products: it is pooling with weights. Weights are packed by tap, (kh kw, C).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from layernet.backend import Array
from layernet.backend.compiled.arrays import by_channel, gradient, takes
from layernet.backend.compiled.geometry import geometry
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split, threads
from layernet.backend.compiled.vectors import fma, load, load_first, load_int, prefetch, splat, store, store_first
from layernet.backend.compiled.windows import taps_in_line, taps_side_by_side
from layernet.backend.reference.conv import ConvOps
from layernet.backend.window import Pair, Window

_ZERO = np.float32(0)
_one, _three, _five = taps_in_line(1), taps_in_line(3), taps_in_line(5)
_three_near, _five_near, _three_by_three = taps_side_by_side(1, 3), taps_side_by_side(1, 5), taps_side_by_side(3, 3)


@njit
def _four_places(line, lines, line_step, tap_step, step, filter, taps, pixel, start):
    """What four places `step` apart see in all their taps, times the filter, added to `start`."""
    a, b, c, d = start, start, start, start
    near = step == tap_step
    if near and taps == 3 and lines == 3:
        return _three_by_three(line, line_step, tap_step, filter, pixel, a, b, c, d)
    for _ in range(lines):
        if near and taps == 3:
            a, b, c, d = _three_near(line, 0, tap_step, filter, pixel, a, b, c, d)
        elif near and taps == 5:
            a, b, c, d = _five_near(line, 0, tap_step, filter, pixel, a, b, c, d)
        elif taps == 3:
            a, b, c, d = _three(line, tap_step, step, filter, pixel, a, b, c, d)
        elif taps == 5:
            a, b, c, d = _five(line, tap_step, step, filter, pixel, a, b, c, d)
        else:
            for j in range(taps):
                a, b, c, d = _one(line + j * tap_step, 0, step, filter + j * pixel, 0, a, b, c, d)
        line, filter = line + line_step, filter + taps * pixel
    return a, b, c, d


@Kernel
def _convolve(
    task, tasks, x, images, height, width, channels, out_height, out_width, stride, down, right, kernel_width,
    row_pixel, row_first, row_end, column_pixel, column_first, column_end, first_inside, last_inside, weight, bias, y,
):  # fmt: skip
    """y = bias + sum over the taps of x weight; where no tap is outside, four places at a time."""
    begin, end = split(images * out_height, task, tasks)
    pixel = channels * 4
    line_step, tap_step, step = down * width * pixel, right * pixel, stride * pixel
    for row in range(begin, end):
        place = (row % out_height) * 8
        first_line, end_line = load_int(row_first + place), load_int(row_end + place)
        image = x + ((row // out_height) * height + load_int(row_pixel + place)) * width * pixel
        ahead = image + end_line * line_step  # the processor does not see these lines coming: twice as fast
        for at in range(0, width * pixel, 64):
            prefetch(ahead + at)
        column = 0
        while column < out_width:
            fast = last_inside - first_inside >= 4 and first_inside <= column < last_inside
            if fast:  # the last four overlap those before
                column = min(column, last_inside - 4)
            first_tap, end_tap = load_int(column_first + column * 8), load_int(column_end + column * 8)
            corner = image + load_int(column_pixel + column * 8) * pixel
            to = y + (row * out_width + column) * pixel
            lines, filters = corner + first_line * line_step, weight + first_line * kernel_width * pixel
            done = 0
            if fast:
                while done + LANES <= channels:
                    at = done * 4
                    a = load(bias + at) if bias else splat(_ZERO)
                    a, b, c, d = _four_places(
                        lines + at, end_line - first_line, line_step, tap_step, step, filters + at, kernel_width,
                        pixel, a,
                    )  # fmt: skip
                    store(to + at, a)
                    store(to + pixel + at, b)
                    store(to + 2 * pixel + at, c)
                    store(to + 3 * pixel + at, d)
                    done += LANES
                count = 4
            else:
                count = 1
            for k in range(count):
                for c0 in range(done, channels, LANES):
                    left, at = channels - c0, c0 * 4
                    total = load_first(bias + at, left) if bias else splat(_ZERO)
                    for i in range(end_line - first_line):
                        line, filter = lines + k * step + i * line_step + at, filters + i * kernel_width * pixel + at
                        if left >= LANES:
                            for j in range(first_tap, end_tap):
                                total = fma(load(line + j * tap_step), load(filter + j * pixel), total)
                            continue
                        for j in range(first_tap, end_tap):
                            w = load_first(filter + j * pixel, left)
                            total = fma(load_first(line + j * tap_step, left), w, total)
                    store_first(to + k * pixel + at, total, left)
            column += count


@Kernel
def _input_gradient(
    task, tasks, dy, images, height, width, channels, out_height, out_width, kernel_width, row_first, row_place,
    row_tap, column_first, column_place, column_tap, weight, dx,
):  # fmt: skip
    """dx = sum over the places whose window covers the pixel of dy weight."""
    begin, end = split(images * height, task, tasks)
    pixel = channels * 4
    for row in range(begin, end):
        image = row // height * out_height
        table = row_first + row % height * 8
        first_line, end_line = load_int(table), load_int(table + 8)
        for column in range(width):
            first, last = load_int(column_first + column * 8), load_int(column_first + column * 8 + 8)
            for c in range(0, channels, LANES):
                left, at = channels - c, c * 4
                total = splat(_ZERO)
                for i in range(first_line, end_line):
                    line = dy + (image + load_int(row_place + i * 8)) * out_width * pixel + at
                    filters = weight + load_int(row_tap + i * 8) * kernel_width * pixel + at
                    for j in range(first, last):
                        value = load_first(line + load_int(column_place + j * 8) * pixel, left)
                        total = fma(value, load_first(filters + load_int(column_tap + j * 8) * pixel, left), total)
                store_first(dx + (row * width + column) * pixel + at, total, left)


@njit
def _add_three(line, gradients, step, tap_step, pixel, tap_first, tap_end, part):
    """Add to the sums of a line's three taps; where all of them lie in the image, one gradient serves them all."""
    begin = max(load_int(tap_first), load_int(tap_first + 8), load_int(tap_first + 16))
    end = max(begin, min(load_int(tap_end), load_int(tap_end + 8), load_int(tap_end + 16)))
    a = splat(_ZERO)
    b, c, d, e, f = a, a, a, a, a
    seen, sent = line + begin * step, gradients + begin * pixel
    for _ in range((end - begin) // 2):
        g, h = load(sent), load(sent + pixel)
        then = seen + step
        a, d = fma(load(seen), g, a), fma(load(then), h, d)
        b, e = fma(load(seen + tap_step), g, b), fma(load(then + tap_step), h, e)
        c, f = fma(load(seen + 2 * tap_step), g, c), fma(load(then + 2 * tap_step), h, f)
        seen, sent = then + step, sent + 2 * pixel
    end -= (end - begin) % 2
    a, b, c = a + d, b + e, c + f
    for j in range(3):
        total = a if j == 0 else b if j == 1 else c
        first, last = load_int(tap_first + j * 8), load_int(tap_end + j * 8)
        for column in range(first, min(last, begin)):
            total = fma(load(line + column * step + j * tap_step), load(gradients + column * pixel), total)
        for column in range(max(end, first), last):
            total = fma(load(line + column * step + j * tap_step), load(gradients + column * pixel), total)
        store(part + j * pixel, load(part + j * pixel) + total)


@Kernel
def _filter_gradient(
    task, tasks, x, dy, images, height, width, channels, out_height, out_width, stride, down, right, kernel_width, size,
    row_pixel, row_first, row_end, left_edge, tap_first, tap_end, sums, parts,
):  # fmt: skip
    """Per task, by tap: the sum of dy x over its rows of places; sums of one image each, added up."""
    begin, end = split(images * out_height, task, tasks)
    pixel = channels * 4
    own, part = sums + task * size * 4, parts + task * size * 4
    for row in range(begin, end):
        place = (row % out_height) * 8
        first_line, end_line = load_int(row_first + place), load_int(row_end + place)
        image = x + ((row // out_height) * height + load_int(row_pixel + place)) * width * pixel
        gradient = dy + row * out_width * pixel
        for at in range(0, width * pixel, 64):
            prefetch(image + end_line * down * width * pixel + at)
        for at in range(0, out_width * pixel, 64):
            prefetch(gradient + out_width * pixel + at)
        for c in range(0, channels, LANES):
            left, at = channels - c, c * 4
            for i in range(first_line, end_line):
                line = image + (i * down * width - left_edge) * pixel + at
                if kernel_width == 3 and left >= LANES:
                    _add_three(
                        line, gradient + at, stride * pixel, right * pixel, pixel, tap_first, tap_end,
                        part + i * 3 * pixel + at,
                    )  # fmt: skip
                    continue
                for j in range(kernel_width):
                    total = splat(_ZERO)
                    first, last = load_int(tap_first + j * 8), load_int(tap_end + j * 8)
                    tap, step = line + j * right * pixel, stride * pixel
                    gradients = gradient + at
                    column = first
                    if left >= LANES:
                        a, b, d = total, total, total
                        while column + 4 <= last:
                            seen, g = tap + column * step, gradients + column * pixel
                            total, a = fma(load(seen), load(g), total), fma(load(seen + step), load(g + pixel), a)
                            b = fma(load(seen + 2 * step), load(g + 2 * pixel), b)
                            d = fma(load(seen + 3 * step), load(g + 3 * pixel), d)
                            column += 4
                        total = (total + a) + (b + d)
                    while column < last:
                        seen = load_first(tap + column * step, left)
                        total = fma(seen, load_first(gradients + column * pixel, left), total)
                        column += 1
                    to = part + (i * kernel_width + j) * pixel + at
                    store_first(to, load_first(to, left) + total, left)
        if row == end - 1 or row % out_height == out_height - 1:
            for c in range(0, size, LANES):
                left, at = size - c, c * 4
                store_first(own + at, load_first(own + at, left) + load_first(part + at, left), left)
                store_first(part + at, splat(_ZERO), left)


@lru_cache(maxsize=256)
def _columns(window: Window, width: int) -> tuple[Array, Array]:
    """For each tap of a row of the window, the places at which it lies in the image: first, last + 1."""
    places = window.out_size((window.extent[0], width))[1]
    at = np.arange(places)[:, None] * window.stride[1] - window.padding[1][0]
    at = at + np.arange(window.kernel[1]) * window.dilation[1]
    inside = (at >= 0) & (at < width)
    first = np.where(inside.any(axis=0), inside.argmax(axis=0), 0)
    return first.astype(np.int64), (first + inside.sum(axis=0)).astype(np.int64)


def _by_tap(weight: Array) -> Array:
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T)


class CompiledDepthwiseOps(ConvOps):
    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> tuple[Array, Any]:
        if not _depthwise(x, weight, groups) or not takes(x, weight, bias) or not by_channel(len(weight), bias):
            return super().conv2d(x, weight, bias, window, groups)
        y = _forward(x, _by_tap(weight), bias, window)
        return y, (x, weight, window, groups)

    def conv2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        x, weight, window, groups = res
        if not _depthwise(x, weight, groups) or not takes(x, weight):
            return super().conv2d_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dy = gradient(dy, (len(x), *window.out_size(x.shape[1:3]), len(weight)))
        dx = _dx(dy, x.shape[1:3], weight, window) if need_dx else None
        dw = _dw(dy, x, weight, window) if need_dw else None
        return dx, dw, self._conv2d_db(dy) if need_db else None


def _forward(x: Array, by_tap: Array, bias: Array | None, window: Window) -> Array:
    n, height, width, channels = x.shape
    rows, columns, _, _ = geometry(window, (height, width))
    inside = np.flatnonzero(columns.end - columns.first == window.kernel[1])
    first, last = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
    y = np.empty((n, len(rows.pixel), len(columns.pixel), channels), dtype=np.float32)
    _convolve.launch(
        x=x, images=n, height=height, width=width, channels=channels, out_height=y.shape[1], out_width=y.shape[2],
        stride=window.stride[1], down=window.dilation[0], right=window.dilation[1], kernel_width=window.kernel[1],
        row_pixel=rows.pixel, row_first=rows.first, row_end=rows.end, column_pixel=columns.pixel,
        column_first=columns.first, column_end=columns.end, first_inside=first, last_inside=last, weight=by_tap,
        bias=bias, y=y,
    )  # fmt: skip
    return y


def _dx(dy: Array, size: Pair, weight: Array, window: Window) -> Array:
    if window.stride == (1, 1):  # then dx is dy convolved with the filters turned by half a turn
        edges = [
            (extent - 1 - before, extent - 1 - after)
            for extent, (before, after) in zip(window.extent, window.padding, strict=True)
        ]
        if min(map(min, edges)) >= 0:
            turned = Window(window.kernel, (1, 1), (edges[0], edges[1]), window.dilation)
            return _forward(dy, np.ascontiguousarray(_by_tap(weight)[::-1]), None, turned)
    n, out_height, out_width, channels = dy.shape
    _, _, rows, columns = geometry(window, size)
    dx = np.empty((n, *size, channels), dtype=np.float32)
    _input_gradient.launch(
        dy=dy, images=n, height=size[0], width=size[1], channels=channels, out_height=out_height, out_width=out_width,
        kernel_width=window.kernel[1], row_first=rows.first, row_place=rows.place, row_tap=rows.tap,
        column_first=columns.first, column_place=columns.place, column_tap=columns.tap, weight=_by_tap(weight), dx=dx,
    )  # fmt: skip
    return dx


def _dw(dy: Array, x: Array, weight: Array, window: Window) -> Array:
    n, height, width, channels = x.shape
    rows, _, _, _ = geometry(window, (height, width))
    tap_first, tap_end = _columns(window, width)
    sums, parts = np.zeros((2, threads(), weight.size), dtype=np.float32)
    _filter_gradient.launch(
        x=x, dy=dy, images=n, height=height, width=width, channels=channels, out_height=dy.shape[1],
        out_width=dy.shape[2], stride=window.stride[1], down=window.dilation[0], right=window.dilation[1],
        kernel_width=window.kernel[1], size=weight.size, row_pixel=rows.pixel, row_first=rows.first, row_end=rows.end,
        left_edge=window.padding[1][0], tap_first=tap_first, tap_end=tap_end, sums=sums, parts=parts,
    )  # fmt: skip
    return np.ascontiguousarray(sums.sum(axis=0).reshape(-1, channels).T).reshape(weight.shape)


def _depthwise(x: Array, weight: Array, groups: int) -> bool:
    return groups == x.shape[3] == len(weight) and groups > 1
