"""Pooling over windows of images (N, H, W, C), with a vector of channels at a time.

Forward goes by places of the window, backward by pixels: tables say which windows a pixel lies in, so each number of
dx is written once, by one thread. Of a maximum the number of the winning tap is kept, a byte in place of x and y.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from layernet.backend import Array, Shape
from layernet.backend.compiled.arrays import gradient, takes
from layernet.backend.compiled.geometry import Covers, Places, geometry
from layernet.backend.compiled.lanes import LANES, vectors_of
from layernet.backend.compiled.launch import Kernel, split
from layernet.backend.compiled.vectors import (
    fma,
    load,
    load_first,
    load_float,
    load_int,
    splat,
    store,
    store_bytes,
    store_first,
    where_at_most,
    where_beats,
    where_byte,
    where_equal,
)
from layernet.backend.compiled.windows import window_peak, window_sum
from layernet.backend.reference.fused import FusedOps
from layernet.backend.window import Pair, Window

_peak_2x2, _peak_3x3 = window_peak(2, 2), window_peak(3, 3)
_sum_2x2, _sum_3x3 = window_sum(2, 2), window_sum(3, 3)

MOST_TAPS = 255  # what a byte can number; it is also no tap's number


@njit
def maximum_row(
    lines, first_line, end_line, width, channels, out_width, down, right, kernel_height, kernel_width, column_pixel,
    column_first, column_end, y, winners, pitch, relu,
):  # fmt: skip
    """A row of y, and by `winners` (where not 0) the number of the first tap that has it.

    255 for NaN, and where ReLU cuts. The windows' taps 0 lie in the row of pixels at `lines`.
    """
    pixel = channels * 4
    line_step, tap_step = down * width * pixel, right * pixel
    whole, square = kernel_height * kernel_width, kernel_height == kernel_width
    zero, lowest, none = splat(np.float32(0)), splat(np.float32(-np.inf)), splat(np.float32(255))
    limit = zero if relu else splat(np.float32(np.nan))
    for column in range(out_width):
        first_tap, end_tap = load_int(column_first + column * 8), load_int(column_end + column * 8)
        corner = lines + load_int(column_pixel + column * 8) * pixel
        taps = (end_line - first_line) * (end_tap - first_tap)
        if taps == whole and (whole == 9 or whole == 4) and square:
            for c in range(0, channels, LANES):
                to, byte = y + column * pixel + c * 4, winners + column * pitch + c if winners else 0
                if whole == 9:
                    _peak_3x3(corner + c * 4, line_step, tap_step, channels - c, limit, to, byte)
                else:
                    _peak_2x2(corner + c * 4, line_step, tap_step, channels - c, limit, to, byte)
            continue
        for c in range(0, channels, LANES):
            left = channels - c
            best, winner = lowest, none
            for i in range(first_line, end_line):
                line = corner + i * line_step + c * 4
                if i == first_line and first_tap < end_tap:
                    best = load_first(line + first_tap * tap_step, left)
                    winner = splat(np.float32(i * kernel_width + first_tap))
                for j in range(first_tap, end_tap):
                    value = load_first(line + j * tap_step, left)
                    winner = where_beats(value, best, splat(np.float32(i * kernel_width + j)), winner)
                    best = where_beats(value, best, value, best)
            store_first(y + column * pixel + c * 4, where_at_most(best, limit, zero, best), left)
            if winners:
                winner = where_equal(best, best, where_at_most(best, limit, none, winner), none)
                store_bytes(winners + column * pitch + c, winner)


@Kernel
def _maximum(
    task, tasks, x, images, height, width, channels, out_height, out_width, down, right, kernel_height, kernel_width,
    row_pixel, row_first, row_end, column_pixel, column_first, column_end, y, winners, pitch, relu,
):  # fmt: skip
    """The rows of all images."""
    begin, end = split(images * out_height, task, tasks)
    for row in range(begin, end):
        place = (row % out_height) * 8
        at = row * out_width
        maximum_row(
            x + ((row // out_height) * height + load_int(row_pixel + place)) * width * channels * 4,
            load_int(row_first + place), load_int(row_end + place), width, channels, out_width, down, right,
            kernel_height, kernel_width, column_pixel, column_first, column_end, y + at * channels * 4,
            winners + at * pitch if winners else 0, pitch, relu,
        )  # fmt: skip


@njit
def maximum_gradient_row(
    dy, winners, pitch, first_line, end_line, width, channels, out_width, kernel_width, row_place, row_tap,
    column_first, column_place, column_tap, dx,
):  # fmt: skip
    """A row of dx from dy and the winners of its image: of each window over a pixel, dy where the pixel has won."""
    zero = splat(np.float32(0))
    for column in range(width):
        first, last = load_int(column_first + column * 8), load_int(column_first + column * 8 + 8)
        pair = 0
        while pair + 2 * LANES <= channels:
            one, two = zero, zero
            for i in range(first_line, end_line):
                line = load_int(row_place + i * 8) * out_width
                tap = load_int(row_tap + i * 8) * kernel_width
                for j in range(first, last):
                    at = line + load_int(column_place + j * 8)
                    value, byte = dy + (at * channels + pair) * 4, winners + at * pitch + pair
                    number = tap + load_int(column_tap + j * 8)
                    one = one + where_byte(byte, number, load(value))
                    two = two + where_byte(byte + LANES, number, load(value + LANES * 4))
            to = dx + (column * channels + pair) * 4
            store(to, one)
            store(to + LANES * 4, two)
            pair += 2 * LANES
        for c in range(pair, channels, LANES):
            left = channels - c
            total = zero
            for i in range(first_line, end_line):
                line = load_int(row_place + i * 8) * out_width
                tap = load_int(row_tap + i * 8) * kernel_width
                for j in range(first, last):
                    at = line + load_int(column_place + j * 8)
                    value = load_first(dy + (at * channels + c) * 4, left)
                    number = tap + load_int(column_tap + j * 8)
                    total = total + where_byte(winners + at * pitch + c, number, value)
            store_first(dx + (column * channels + c) * 4, total, left)


@Kernel
def _maximum_gradient(
    task, tasks, dy, winners, pitch, images, height, width, channels, out_height, out_width, kernel_width, row_first,
    row_place, row_tap, column_first, column_place, column_tap, dx,
):  # fmt: skip
    """The rows of all images."""
    begin, end = split(images * height, task, tasks)
    for row in range(begin, end):
        at = row // height * out_height * out_width
        table = row_first + row % height * 8
        maximum_gradient_row(
            dy + at * channels * 4, winners + at * pitch, pitch, load_int(table), load_int(table + 8), width, channels,
            out_width, kernel_width, row_place, row_tap, column_first, column_place, column_tap,
            dx + row * width * channels * 4,
        )  # fmt: skip


@Kernel
def _maximum_gradient_tiled(task, tasks, dy, winners, pitch, rows, columns, channels, kernel_height, kernel_width, dx):
    """The same where the windows tile the image: by places, dy read once."""
    begin, end = split(rows, task, tasks)
    pixel = channels * 4
    line = columns * kernel_width * pixel
    for row in range(begin, end):
        target = dx + row * kernel_height * line
        for column in range(columns):
            at, corner = row * columns + column, target + column * kernel_width * pixel
            for c in range(0, channels, LANES):
                left, byte = channels - c, winners + at * pitch + c
                value = load_first(dy + at * pixel + c * 4, left)
                number = 0
                for i in range(kernel_height):
                    to = corner + i * line + c * 4
                    for _ in range(kernel_width):
                        store_first(to, where_byte(byte, number, value), left)
                        to, number = to + pixel, number + 1


@Kernel
def _average(
    task, tasks, x, images, height, width, channels, out_height, out_width, down, right, kernel_height, kernel_width,
    row_pixel, row_first, row_end, column_pixel, column_first, column_end, shares, y,
):  # fmt: skip
    """y: the sum over each window, times the place's share."""
    begin, end = split(images * out_height, task, tasks)
    pixel = channels * 4
    line_step, tap_step = down * width * pixel, right * pixel
    whole, square = kernel_height * kernel_width, kernel_height == kernel_width
    zero = splat(np.float32(0))
    for row in range(begin, end):
        place = (row % out_height) * 8
        first_line, end_line = load_int(row_first + place), load_int(row_end + place)
        image = x + ((row // out_height) * height + load_int(row_pixel + place)) * width * pixel
        for column in range(out_width):
            first_tap, end_tap = load_int(column_first + column * 8), load_int(column_end + column * 8)
            corner = image + load_int(column_pixel + column * 8) * pixel
            share = splat(load_float(shares + (row % out_height * out_width + column) * 4))
            to = y + (row * out_width + column) * pixel
            taps = (end_line - first_line) * (end_tap - first_tap)
            if taps == whole and (whole == 9 or whole == 4) and square:
                for c in range(0, channels, LANES):
                    if whole == 9:
                        total = _sum_3x3(corner + c * 4, line_step, tap_step, channels - c)
                    else:
                        total = _sum_2x2(corner + c * 4, line_step, tap_step, channels - c)
                    store_first(to + c * 4, total * share, channels - c)
                continue
            pair = 0
            while pair + 2 * LANES <= channels:
                one, two = zero, zero
                for i in range(first_line, end_line):
                    tap = corner + i * line_step + first_tap * tap_step + pair * 4
                    left_part, right_part = zero, zero
                    for _ in range(first_tap, end_tap):
                        left_part, right_part = left_part + load(tap), right_part + load(tap + LANES * 4)
                        tap += tap_step
                    one, two = one + left_part, two + right_part
                store(to + pair * 4, one * share)
                store(to + pair * 4 + LANES * 4, two * share)
                pair += 2 * LANES
            for c in range(pair, channels, LANES):
                left = channels - c
                total = zero
                for i in range(first_line, end_line):
                    line = corner + i * line_step + c * 4
                    part = zero
                    for j in range(first_tap, end_tap):
                        part = part + load_first(line + j * tap_step, left)
                    total = total + part
                store_first(to + c * 4, total * share, left)


@Kernel
def _average_gradient(
    task, tasks, dy, images, height, width, channels, out_height, out_width, row_first, row_place, column_first,
    column_place, shares, dx,
):  # fmt: skip
    """dx: of each window over a pixel, dy times the place's share."""
    begin, end = split(images * height, task, tasks)
    zero = splat(np.float32(0))
    for row in range(begin, end):
        image = row // height * out_height
        table = row_first + row % height * 8
        first_line, end_line = load_int(table), load_int(table + 8)
        for column in range(width):
            first, last = load_int(column_first + column * 8), load_int(column_first + column * 8 + 8)
            for c in range(0, channels, LANES):
                left = channels - c
                total = zero
                for i in range(first_line, end_line):
                    line = load_int(row_place + i * 8)
                    for j in range(first, last):
                        place = line * out_width + load_int(column_place + j * 8)
                        at = ((image * out_width + place) * channels + c) * 4
                        total = fma(load_first(dy + at, left), splat(load_float(shares + place * 4)), total)
                store_first(dx + ((row * width + column) * channels + c) * 4, total, left)


def maximum(x: Array, window: Window, keep: bool = True, relu: bool = False) -> tuple[Array, Array]:
    """(y, the winning tap of each place, its rows of channels padded to whole vectors; empty where not kept)."""
    rows, columns, _, _ = geometry(window, (x.shape[1], x.shape[2]))
    return find_peaks(_maximum, x, rows, columns, window.kernel, window.dilation, keep, relu=int(relu))


def maximum_at(x: Array, rows: Places, columns: Places, kernel: Pair) -> tuple[Array, Array]:
    """The same for places that no window makes, none of more than `kernel` pixels."""
    return find_peaks(_maximum, x, rows, columns, kernel, (1, 1), True, relu=0)


def find_peaks(
    kernel: Kernel, x: Array, rows: Places, columns: Places, taps: Pair, dilation: Pair, keep: bool, **more: int
) -> tuple[Array, Array]:
    """What a kernel finds that takes the arguments of `_maximum`, those that it has more included."""
    n, height, width, channels = x.shape
    y = np.empty((n, len(rows.pixel), len(columns.pixel), channels), dtype=np.float32)
    pitch = vectors_of(channels) * LANES
    winners = np.empty((*y.shape[:3], pitch) if keep else 0, dtype=np.uint8)
    kernel.launch(
        x=x, images=n, height=height, width=width, channels=channels, out_height=y.shape[1], out_width=y.shape[2],
        down=dilation[0], right=dilation[1], kernel_height=taps[0], kernel_width=taps[1], row_pixel=rows.pixel,
        row_first=rows.first, row_end=rows.end, column_pixel=columns.pixel, column_first=columns.first,
        column_end=columns.end, y=y, winners=winners if keep else None, pitch=pitch,
        **more,
    )  # fmt: skip
    return y, winners


def maximum_gradient(dy: Array, winners: Array, shape: Shape, window: Window) -> Array:
    n, height, width, channels = shape
    (kh, kw), (out_height, out_width) = window.kernel, dy.shape[1:3]
    if window == Window((kh, kw), (kh, kw)) and (height, width) == (kh * out_height, kw * out_width):
        dx = np.empty(shape, dtype=np.float32)
        _maximum_gradient_tiled.launch(
            dy=dy, winners=winners, pitch=winners.shape[3], rows=n * out_height, columns=out_width, channels=channels,
            kernel_height=kh, kernel_width=kw, dx=dx,
        )  # fmt: skip
        return dx
    return peaks_gradient(dy, winners, shape, *geometry(window, (height, width))[2:], kw)


def peaks_gradient(dy: Array, winners: Array, shape: Shape, rows: Covers, columns: Covers, kernel_width: int) -> Array:
    """dx, where taps are numbered in lines of `kernel_width`."""
    dx = np.empty(shape, dtype=np.float32)
    _maximum_gradient.launch(
        dy=dy, winners=winners, pitch=winners.shape[3], images=shape[0], height=shape[1], width=shape[2],
        channels=shape[3], out_height=dy.shape[1], out_width=dy.shape[2], kernel_width=kernel_width,
        row_first=rows.first, row_place=rows.place, row_tap=rows.tap, column_first=columns.first,
        column_place=columns.place, column_tap=columns.tap, dx=dx,
    )  # fmt: skip
    return dx


def average(x: Array, window: Window, shares: Array) -> Array:
    """The sum over each window times its place's share (rows of places, columns of places)."""
    n, height, width, channels = x.shape
    rows, columns, _, _ = geometry(window, (height, width))
    y = np.empty((n, len(rows.pixel), len(columns.pixel), channels), dtype=np.float32)
    _average.launch(
        x=x, images=n, height=height, width=width, channels=channels, out_height=y.shape[1], out_width=y.shape[2],
        down=window.dilation[0], right=window.dilation[1], kernel_height=window.kernel[0],
        kernel_width=window.kernel[1], row_pixel=rows.pixel, row_first=rows.first, row_end=rows.end,
        column_pixel=columns.pixel, column_first=columns.first, column_end=columns.end, shares=shares, y=y,
    )  # fmt: skip
    return y


def average_gradient(dy: Array, shape: Shape, window: Window, shares: Array) -> Array:
    n, height, width, channels = shape
    _, _, rows, columns = geometry(window, (height, width))
    dx = np.empty(shape, dtype=np.float32)
    _average_gradient.launch(
        dy=dy, images=n, height=height, width=width, channels=channels, out_height=dy.shape[1], out_width=dy.shape[2],
        row_first=rows.first, row_place=rows.place, column_first=columns.first, column_place=columns.place,
        shares=shares, dx=dx,
    )  # fmt: skip
    return dx


class CompiledPoolOps(FusedOps):
    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Any]:
        if not takes(x) or window.kernel[0] * window.kernel[1] > MOST_TAPS:
            return super().max_pool2d(x, window)
        y, winners = maximum(x, window)
        return y, _Won(winners, x.shape, window)

    def max_pool2d_backward(self, dy: Array, res: Any) -> Array:
        if not isinstance(res, _Won):
            return super().max_pool2d_backward(dy, res)
        return maximum_gradient(gradient(dy, out_shape(res.shape, res.window)), *res)

    def max_pool2d_relu(self, x: Array, window: Window) -> tuple[Array, Any]:
        if not takes(x) or window.kernel[0] * window.kernel[1] > MOST_TAPS:
            return super().max_pool2d_relu(x, window)
        y, winners = maximum(x, window, relu=True)
        return y, _Won(winners, x.shape, window)

    def max_pool2d_relu_backward(self, dy: Array, res: Any) -> Array:
        # where ReLU has cut, no tap has won
        return self.max_pool2d_backward(dy, res) if isinstance(res, _Won) else super().max_pool2d_relu_backward(dy, res)

    def avg_pool2d(self, x: Array, window: Window, divisor: Array | float) -> tuple[Array, Any]:
        if not takes(x):
            return super().avg_pool2d(x, window, divisor)
        out = window.out_size(x.shape[1:3])
        shares = np.empty((*out, 1), dtype=np.float32)
        shares[...] = np.reciprocal(divisor, dtype=np.float32)
        return average(x, window, shares), _Averaged(x.shape, window, shares)

    def avg_pool2d_backward(self, dy: Array, res: Any) -> Array:
        if not isinstance(res, _Averaged):
            return super().avg_pool2d_backward(dy, res)
        return average_gradient(gradient(dy, out_shape(res.shape, res.window)), *res)

    def global_avg_pool2d(self, x: Array) -> tuple[Array, Any]:
        if not takes(x):
            return super().global_avg_pool2d(x)
        y, res = self.avg_pool2d(x, Window(x.shape[1:3]), float(x.shape[1] * x.shape[2]))
        return y.reshape(len(x), -1), res

    def global_avg_pool2d_backward(self, dy: Array, res: Any) -> Array:
        if not isinstance(res, _Averaged):
            return super().global_avg_pool2d_backward(dy, res)
        return self.avg_pool2d_backward(dy[:, None, None], res)


def out_shape(shape: Shape, window: Window) -> Shape:
    return (shape[0], *window.out_size((shape[1], shape[2])), shape[3])


class _Won(NamedTuple):
    winners: Array
    shape: Shape
    window: Window


class _Averaged(NamedTuple):
    shape: Shape
    window: Window
    shares: Array
