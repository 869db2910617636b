"""Pooling over windows of images (N, H, W, C), each channel by itself, one tap of the window after the other."""

from __future__ import annotations

import math
from typing import Any

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily
from layernet.backend.window import Window

Spans = tuple[tuple[int, int], ...]
"""Windows along one axis: (first pixel, last + 1) of each."""


class PoolOps(KernelFamily):
    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Any]:
        """The maximum in each window; padding never wins. NaN wins always."""
        y = self.xp.full((len(x), *window.out_size(x.shape[1:3]), x.shape[3]), -self.xp.inf, dtype=x.dtype)
        for tap in window.taps(x.shape[1:3]):
            self.xp.maximum(y[tap.feeds], x[tap.reads], out=y[tap.feeds])
        return y, (x, y, window)

    def max_pool2d_backward(self, dy: Array, res: Any) -> Array:
        """dx: the first pixel in the window, in reading order, that equals the maximum gets all of dy."""
        x, y, window = res
        return self._to_peaks(dy, x, y, window, "first")

    def peak_pool2d(self, x: Array, window: Window, peak: str, ties: str) -> tuple[Array, Any]:
        """The peak in each window: the maximum ("max"), or the pixel furthest from 0 ("max_abs"), sign and all.

        Of +v and -v the later one, in reading order, is the peak. Padding never wins, NaN wins always. With `ties`
        "first" one pixel gets the gradient, the first that equals the peak; with "all" every one that does.
        """
        y = self.max_pool2d(x, window)[0] if peak == "max" else self._furthest_from_zero(x, window)
        return y, (x, y, window, ties)

    def peak_pool2d_backward(self, dy: Array, res: Any) -> Array:
        """dx: all of dy to the pixels that equal the peak."""
        return self._to_peaks(dy, *res)

    def span_max_pool2d(self, x: Array, rows: Spans, columns: Spans) -> tuple[Array, Any]:
        """The maximum in each of H' x W' windows, row i and column j being those of window (i, j). NaN wins always."""
        y = self.xp.empty((len(x), len(rows), len(columns), x.shape[3]), dtype=x.dtype)
        winners = []
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                window = x[:, top:bottom, left:right]
                pixels = window.reshape(len(x), (bottom - top) * (right - left), x.shape[3])
                first = pixels.argmax(axis=1)[:, None]
                y[:, i, j] = self.xp.take_along_axis(pixels, first, axis=1)[:, 0]
                # a NaN wins, and nobody gets the gradient, as in max_pool2d
                won = (self.xp.arange(pixels.shape[1])[:, None] == first) & (pixels == pixels)
                winners.append(won.reshape(window.shape))
        return y, (x.shape, rows, columns, winners)

    def span_max_pool2d_backward(self, dy: Array, res: Any) -> Array:
        """dx: the first pixel in the window, in reading order, that is the maximum gets all of dy."""
        shape, rows, columns, winners = res
        dx = self.xp.zeros(shape, dtype=dy.dtype)
        won = iter(winners)
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                dx[:, top:bottom, left:right] += next(won) * dy[:, i, j, None, None, :]
        return dx

    def _furthest_from_zero(self, x: Array, window: Window) -> Array:
        y = self.xp.zeros((len(x), *window.out_size(x.shape[1:3]), x.shape[3]), dtype=x.dtype)
        for tap in window.taps(x.shape[1:3]):
            best, pixel = y[tap.feeds], x[tap.reads]
            stays = (abs(best) > abs(pixel)) | (best != best)
            y[tap.feeds] = self.xp.where(stays, best, pixel)
        return y

    def _to_peaks(self, dy: Array, x: Array, y: Array, window: Window, ties: str) -> Array:
        dx = self.xp.zeros(x.shape, dtype=dy.dtype)
        unclaimed = self.xp.ones(y.shape, dtype=bool)
        for tap in window.taps(x.shape[1:3]):
            won = (x[tap.reads] == y[tap.feeds]) & unclaimed[tap.feeds]
            if ties == "first":
                unclaimed[tap.feeds] ^= won
            dx[tap.reads] += self.xp.where(won, dy[tap.feeds], 0)
        return dx

    def avg_pool2d(self, x: Array, window: Window, divisor: Array | float) -> tuple[Array, Any]:
        """The sum of each window over `divisor`, a number or an array (rows of places, columns of places, 1)."""
        y = self.xp.zeros((len(x), *window.out_size(x.shape[1:3]), x.shape[3]), dtype=x.dtype)
        for tap in window.taps(x.shape[1:3]):
            y[tap.feeds] += x[tap.reads]
        y /= divisor
        return y, (x.shape, window, divisor)

    def avg_pool2d_backward(self, dy: Array, res: Any) -> Array:
        """dx: every pixel gets dy / divisor of every window over it."""
        shape, window, divisor = res
        dx = self.xp.zeros(shape, dtype=dy.dtype)
        share = dy / divisor
        for tap in window.taps(shape[1:3]):
            dx[tap.reads] += share[tap.feeds]
        return dx

    def global_avg_pool2d(self, x: Array) -> tuple[Array, Any]:
        """(N, H, W, C) -> (N, C): the mean of each channel over the image."""
        return x.mean(axis=(1, 2)), x.shape

    def global_avg_pool2d_backward(self, dy: Array, res: Any) -> Array:
        """dx: every pixel gets its share of dy."""
        dx = self.xp.empty(res, dtype=dy.dtype)
        dx[...] = dy[:, None, None, :] / math.prod(res[1:3])
        return dx
