"""Depthwise convolution: every channel with a filter of its own, a vector of channels at a time.

Too little arithmetic for matrix products: it is pooling with weights. Weights are packed by tap, (kh kw, C).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.arrays import takes
from layernet.backend.compiled.launch import Kernel, launch, split, threads, unpack
from layernet.backend.compiled.pool import geometry
from layernet.backend.compiled.simd import LANES, fma, load_first, load_int, splat, store_first
from layernet.backend.reference.conv import ConvOps
from layernet.backend.window import Pair, Window

_ZERO = np.float32(0)


@Kernel
def _convolve(arguments, task):
    """y = bias + sum over the taps of x weight."""
    (
        x, images, height, width, channels, out_height, out_width, down, right, kernel_width,
        row_pixel, row_first, row_end, column_pixel, column_first, column_end, weight, bias, y, tasks,
    ) = unpack(arguments, 20)  # fmt: skip
    begin, end = split(images * out_height, task, tasks)
    pixel = channels * 4
    line_step, tap_step = down * width * pixel, right * pixel
    for row in range(begin, end):
        place = (row % out_height) * 8
        first_line, end_line = load_int(row_first + place), load_int(row_end + place)
        image = x + ((row // out_height) * height + load_int(row_pixel + place)) * width * pixel
        for column in range(out_width):
            first_tap, end_tap = load_int(column_first + column * 8), load_int(column_end + column * 8)
            corner = image + load_int(column_pixel + column * 8) * pixel
            to = y + (row * out_width + column) * pixel
            for c in range(0, channels, LANES):
                left, at = channels - c, c * 4
                total = load_first(bias + at, left) if bias else splat(_ZERO)
                for i in range(first_line, end_line):
                    line, filters = corner + i * line_step + at, weight + i * kernel_width * pixel + at
                    for j in range(first_tap, end_tap):
                        total = fma(load_first(line + j * tap_step, left), load_first(filters + j * pixel, left), total)
                store_first(to + at, total, left)


@Kernel
def _input_gradient(arguments, task):
    """dx = sum over the places whose window covers the pixel of dy weight."""
    (
        dy, images, height, width, channels, out_height, out_width, kernel_width,
        row_first, row_place, row_tap, column_first, column_place, column_tap, weight, dx, tasks,
    ) = unpack(arguments, 17)  # fmt: skip
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


@Kernel
def _filter_gradient(arguments, task):
    """Per task, by tap: the sum of dy x over its rows of places; sums of one image each, added up."""
    (
        x, dy, images, height, width, channels, out_height, out_width, stride, down, right, kernel_width, size,
        row_pixel, row_first, row_end, left_edge, tap_first, tap_end, sums, parts, tasks,
    ) = unpack(arguments, 22)  # fmt: skip
    begin, end = split(images * out_height, task, tasks)
    pixel = channels * 4
    own, part = sums + task * size * 4, parts + task * size * 4
    for row in range(begin, end):
        place = (row % out_height) * 8
        first_line, end_line = load_int(row_first + place), load_int(row_end + place)
        image = x + ((row // out_height) * height + load_int(row_pixel + place)) * width * pixel
        gradient = dy + row * out_width * pixel
        for c in range(0, channels, LANES):
            left, at = channels - c, c * 4
            for i in range(first_line, end_line):
                line = image + (i * down * width - left_edge) * pixel + at
                for j in range(kernel_width):
                    total = splat(_ZERO)
                    first, last = load_int(tap_first + j * 8), load_int(tap_end + j * 8)
                    for column in range(first, last):
                        seen = load_first(line + (column * stride + j * right) * pixel, left)
                        total = fma(seen, load_first(gradient + column * pixel + at, left), total)
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
        if not _depthwise(x, weight, groups) or not takes(x, weight, bias):
            return super().conv2d(x, weight, bias, window, groups)
        n, height, width, channels = x.shape
        rows, columns, _, _ = geometry(window, (height, width))
        y = np.empty((n, len(rows.pixel), len(columns.pixel), channels), dtype=np.float32)
        launch(
            _convolve, x, n, height, width, channels, *y.shape[1:3], *window.dilation, window.kernel[1], *rows,
            *columns, _by_tap(weight), bias, y, threads(),
        )  # fmt: skip
        return y, (x, weight, window, groups)

    def conv2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        x, weight, window, groups = res
        dy = np.ascontiguousarray(dy)
        if not _depthwise(x, weight, groups) or not takes(x, weight, dy):
            return super().conv2d_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dx = _dx(dy, x.shape[1:3], weight, window) if need_dx else None
        dw = _dw(dy, x, weight, window) if need_dw else None
        return dx, dw, self._conv2d_db(dy) if need_db else None


def _dx(dy: Array, size: Pair, weight: Array, window: Window) -> Array:
    n, out_height, out_width, channels = dy.shape
    _, _, rows, columns = geometry(window, size)
    dx = np.empty((n, *size, channels), dtype=np.float32)
    launch(
        _input_gradient, dy, n, *size, channels, out_height, out_width, window.kernel[1], *rows, *columns,
        _by_tap(weight), dx, threads(),
    )  # fmt: skip
    return dx


def _dw(dy: Array, x: Array, weight: Array, window: Window) -> Array:
    n, height, width, channels = x.shape
    rows, _, _, _ = geometry(window, (height, width))
    sums, parts = np.zeros((2, threads(), weight.size), dtype=np.float32)
    launch(
        _filter_gradient, x, dy, n, height, width, channels, *dy.shape[1:3], window.stride[1], *window.dilation,
        window.kernel[1], weight.size, *rows, window.padding[1][0], *_columns(window, width), sums, parts, threads(),
    )  # fmt: skip
    return np.ascontiguousarray(sums.sum(axis=0).reshape(-1, channels).T).reshape(weight.shape)


def _depthwise(x: Array, weight: Array, groups: int) -> bool:
    return groups == x.shape[3] == len(weight) and groups > 1
