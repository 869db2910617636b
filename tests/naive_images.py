"""Convolution and pooling as their definitions say, pixel by pixel in float64: what the kernels are held against."""

from __future__ import annotations

import itertools

import numpy as np

from layernet.backend.window import Window


def places(window, size):
    """The number of places of the window, counted by sliding it until its end leaves the padded image."""
    counts = []
    for axis in (0, 1):
        end = size[axis] + sum(window.padding[axis])
        reach = window.dilation[axis] * (window.kernel[axis] - 1)
        counts.append(sum(1 for start in range(0, end, window.stride[axis]) if start + reach < end))
    return tuple(counts)


def pixels(window, size, place):
    """(tap row, tap column, pixel row, pixel column) of every tap on the image, in reading order."""
    for i, j in itertools.product(range(window.kernel[0]), range(window.kernel[1])):
        h = place[0] * window.stride[0] - window.padding[0][0] + i * window.dilation[0]
        w = place[1] * window.stride[1] - window.padding[1][0] + j * window.dilation[1]
        if 0 <= h < size[0] and 0 <= w < size[1]:
            yield i, j, h, w


def each_place(window, x):
    """(n, place) for every window in a batch of images."""
    rows, columns = places(window, x.shape[1:3])
    return itertools.product(range(len(x)), itertools.product(range(rows), range(columns)))


def conv2d(x, weight, bias, window, groups):
    out, share = len(weight), weight.shape[3]
    y = np.zeros((len(x), *places(window, x.shape[1:3]), out))
    for n, (r, c) in each_place(window, x):
        for o in range(out):
            first = o // (out // groups) * share
            y[n, r, c, o] = 0.0 if bias is None else bias[o]
            for i, j, h, w in pixels(window, x.shape[1:3], (r, c)):
                y[n, r, c, o] += sum(float(x[n, h, w, first + k]) * float(weight[o, i, j, k]) for k in range(share))
    return y


def conv2d_backward(dy, x, weight, window, groups):
    """(dx, dw, db), each product of the definition differentiated by itself."""
    out, share = len(weight), weight.shape[3]
    dx, dw, db = np.zeros(x.shape), np.zeros(weight.shape), np.zeros(out)
    for n, (r, c) in each_place(window, x):
        for o in range(out):
            first = o // (out // groups) * share
            g = float(dy[n, r, c, o])
            db[o] += g
            for i, j, h, w in pixels(window, x.shape[1:3], (r, c)):
                for k in range(share):
                    dx[n, h, w, first + k] += g * float(weight[o, i, j, k])
                    dw[o, i, j, k] += g * float(x[n, h, w, first + k])
    return dx, dw, db


def max_pool2d(x, dy, window):
    """(y, dx); dy may be None"""
    y, dx = np.zeros((len(x), *places(window, x.shape[1:3]), x.shape[3])), np.zeros(x.shape)
    for n, (r, c) in each_place(window, x):
        for k in range(x.shape[3]):
            seen = [(h, w) for _, _, h, w in pixels(window, x.shape[1:3], (r, c))]
            best = max(range(len(seen)), key=lambda t: x[n, seen[t][0], seen[t][1], k])  # max takes the first
            y[n, r, c, k] = x[n, seen[best][0], seen[best][1], k]
            if dy is not None:
                dx[n, seen[best][0], seen[best][1], k] += dy[n, r, c, k]
    return y, dx


def peak_pool2d(x, dy, window, peak, ties):
    """(y, dx): the maximum, or what is furthest from 0 and of two such the later; dy to the first tie or to all"""
    y, dx = np.zeros((len(x), *places(window, x.shape[1:3]), x.shape[3])), np.zeros(x.shape)
    for n, (r, c) in each_place(window, x):
        for k in range(x.shape[3]):
            seen = [(h, w) for _, _, h, w in pixels(window, x.shape[1:3], (r, c))]
            values = [float(x[n, h, w, k]) for h, w in seen]
            best = max(values) if peak == "max" else [v for v in values if abs(v) == max(map(abs, values))][-1]
            y[n, r, c, k] = best
            tied = [place for place, v in zip(seen, values, strict=True) if v == best]
            for h, w in tied if ties == "all" else tied[:1]:
                dx[n, h, w, k] += dy[n, r, c, k]
    return y, dx


def avg_pool2d(x, dy, window, divisor):
    """(y, dx); divisor (rows, columns, 1)"""
    y, dx = np.zeros((len(x), *places(window, x.shape[1:3]), x.shape[3])), np.zeros(x.shape)
    for n, (r, c) in each_place(window, x):
        for _, _, h, w in pixels(window, x.shape[1:3], (r, c)):
            y[n, r, c] += x[n, h, w] / divisor[r, c]
            dx[n, h, w] += dy[n, r, c] / divisor[r, c]
    return y, dx


def window(kernel, stride=1, padding=0, dilation=1):
    """A Window from numbers, pairs, or ((top, bottom), (left, right)) padding."""
    two = lambda v: (v, v) if isinstance(v, int) else v  # noqa: E731
    return Window(two(kernel), two(stride), tuple(map(two, two(padding))), two(dilation))
