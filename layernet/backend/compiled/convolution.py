"""Convolution of every kind but depthwise: which kernels do it, and its dilated and grouped kinds by plain ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.compiled import (
    direct,
    direct_gradient,
    elementwise,
    grouped,
    winograd,
    winograd_gradient,
)
from layernet.backend.compiled.arrays import by_channel, gradient, takes
from layernet.backend.compiled.columns import is_small
from layernet.backend.compiled.grouped import takes_groups
from layernet.backend.compiled.parts import plain
from layernet.backend.compiled.pointwise import multiply_groups
from layernet.backend.reference.fused import FusedOps
from layernet.backend.window import Window

LEAST_PRODUCTS = 200_000
"""From so many for an output channel on, Winograd's filtering saves more of them than its filters cost to transform."""


class Kind(Enum):
    """What a convolution is to the kernels."""

    PLAIN = "of one group, without dilation: by Winograd's filtering or directly"
    GROUPED = "of groups so small that a vector holds several"
    POINTWISE = "of single pixels: a product for each group, but for its filters' gradient, which goes by parts"
    PARTS = "each group by itself, and where it is dilated on images of every so many-th pixel: plain ones"


def kind_of(window: Window, groups: int, weight: Shape) -> Kind:
    """The kind of a convolution with filters of this shape (out, kh, kw, in / groups)."""
    if groups == 1 and window.dilation == (1, 1):
        return Kind.PLAIN
    if takes_groups(groups, weight[3], weight[0] // groups):
        return Kind.GROUPED
    if (window.kernel, window.stride, window.padding) == ((1, 1), (1, 1), ((0, 0), (0, 0))):
        return Kind.POINTWISE
    return Kind.PARTS


class CompiledConvOps(FusedOps):
    """Its steps are those of the reference's formulas, so that transposed convolution comes this way, too."""

    precise: bool

    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> tuple[Array, Any]:
        if not _convolves(window, groups, x, weight) or not by_channel(len(weight), bias):
            return super().conv2d(x, weight, bias, window, groups)
        return self._conv2d(x, weight, bias, window, groups, False), (x, weight, window, groups)

    def conv2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        x, weight, window, groups = res
        if not _convolves(window, groups, x, weight):
            return super().conv2d_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dy = gradient(dy, (len(x), *window.out_size(x.shape[1:3]), len(weight)))
        return *self._conv2d_gradients(dy, x, weight, window, groups, need_dx, need_dw), self.channel_sum(
            dy
        ) if need_db else None

    def conv2d_relu(
        self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1
    ) -> tuple[Array, Any]:
        if not _convolves(window, groups, x, weight) or not by_channel(len(weight), bias):
            return super().conv2d_relu(x, weight, bias, window, groups)
        y = self._conv2d(x, weight, bias, window, groups, True)
        return y, ((x, weight, window, groups), y)

    def conv2d_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        (x, weight, window, groups), y = res
        if not _convolves(window, groups, x, weight) or not takes(y):
            return super().conv2d_relu_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dz, db = elementwise.relu_gradient_and_sum(gradient(dy, y.shape), y)
        gradients = self._conv2d_gradients(dz, x, weight, window, groups, need_dx, need_dw)
        return *gradients, db.astype(dz.dtype) if need_db else None

    def _conv2d_gradients(
        self, dy: Array, x: Array, weight: Array, window: Window, groups: int, need_dx: bool, need_dw: bool
    ) -> tuple[Array | None, Array | None]:
        dx = self._conv2d_dx(dy, x.shape, weight, window, groups) if need_dx else None
        return dx, self._conv2d_dw(dy, x, weight.shape, window, groups) if need_dw else None

    def _conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int, relu: bool) -> Array:
        y = np.empty((len(x), *window.out_size(x.shape[1:3]), len(weight)), dtype=np.float32)
        bias = None if bias is None else np.ascontiguousarray(bias, dtype=np.float32)
        kind = kind_of(window, groups, weight.shape)
        if kind is Kind.PLAIN:
            self._plain_y(x, weight, bias, window, y, relu)
            return y
        if kind is Kind.GROUPED:
            grouped.convolve(x, weight, bias, window, groups, y, relu)
            return y
        if kind is Kind.POINTWISE:
            matrices = weight.reshape(groups, -1, weight.shape[3]).transpose(0, 2, 1)
            multiply_groups(x, matrices, bias, y, relu)
            return y
        inner, pixels, places = plain(window, x.shape[1:3])
        for group in _groups(groups, len(weight), x.shape[3]):
            seen = pixels.take_apart(x, group.first_in, group.ins)
            part = np.empty((len(seen), *places.small, group.outs), dtype=np.float32)
            self._plain_y(seen, weight[group.filters], None if bias is None else bias[group.filters], inner, part, relu)
            places.put_together(part, y, group.first_out)
        return y

    def _conv2d_dx(self, dy: Array, shape: Shape, weight: Array, window: Window, groups: int) -> Array:
        dy, weight = np.ascontiguousarray(dy), np.ascontiguousarray(weight)
        fits = dy.shape == (len(dy), *window.out_size((shape[1], shape[2])), len(weight))
        if not takes(dy, weight) or not fits or shape[3] != weight.shape[3] * groups:
            return super()._conv2d_dx(dy, shape, weight, window, groups)
        dx = np.empty(shape, dtype=np.float32)
        kind = kind_of(window, groups, weight.shape)
        if kind is Kind.PLAIN:
            self._plain_dx(dy, weight, window, dx)
            return dx
        if kind is Kind.GROUPED:
            grouped.input_gradient(dy, weight, window, groups, dx)
            return dx
        if kind is Kind.POINTWISE:
            multiply_groups(dy, weight.reshape(groups, -1, weight.shape[3]), None, dx)
            return dx
        inner, pixels, places = plain(window, (shape[1], shape[2]))
        for group in _groups(groups, len(weight), shape[3]):
            sent = places.take_apart(dy, group.first_out, group.outs)
            part = np.empty((len(sent), *pixels.small, group.ins), dtype=np.float32)
            self._plain_dx(sent, weight[group.filters], inner, part)
            pixels.put_together(part, dx, group.first_in)
        return dx

    def _conv2d_dw(self, dy: Array, x: Array, shape: Shape, window: Window, groups: int) -> Array:
        dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
        fits = dy.shape == (len(x), *window.out_size(x.shape[1:3]), shape[0]) and x.shape[3] == shape[3] * groups
        if not takes(dy, x) or not fits:
            return super()._conv2d_dw(dy, x, shape, window, groups)
        dw = np.empty(shape, dtype=np.float32)
        kind = kind_of(window, groups, shape)
        if kind is Kind.PLAIN:
            self._plain_dw(dy, x, window, dw)
            return dw
        if kind is Kind.GROUPED:
            grouped.filter_gradient(x, dy, window, groups, dw)
            return dw
        inner, pixels, places = plain(window, x.shape[1:3])
        for group in _groups(groups, shape[0], x.shape[3]):
            seen = pixels.take_apart(x, group.first_in, group.ins)
            sent = places.take_apart(dy, group.first_out, group.outs)
            self._plain_dw(sent, seen, inner, dw[group.filters])
        return dw

    def _conv2d_db(self, dy: Array) -> Array:
        return self.channel_sum(dy)

    # without groups and dilation

    def goes_directly(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int) -> bool:
        """Whether a convolution is done by the direct kernel, image by image."""
        if not (_convolves(window, groups, x, weight) and by_channel(len(weight), bias)):
            return False
        if kind_of(window, groups, weight.shape) is not Kind.PLAIN or window == Window((1, 1)):
            return False
        places = math.prod(window.out_size((x.shape[1], x.shape[2])))
        return not (self._filters_y(weight, window, len(x) * places) or is_small(window, places))

    def _plain_y(self, x: Array, weight: Array, bias: Array | None, window: Window, y: Array, relu: bool) -> None:
        if self._filters_y(weight, window, y.size // len(weight)):
            winograd.convolve(x, weight, bias, _corner(window), y, relu)
        else:
            direct.convolve(x, weight, bias, window, y, relu)

    def _plain_dx(self, dy: Array, weight: Array, window: Window, dx: Array) -> None:
        top, left = (weight.shape[axis] - 1 - before for axis, before in zip((1, 2), _corner(window), strict=True))
        if self._by_winograd(weight.shape[3], window) and min(top, left) >= 0:
            winograd.convolve(dy, weight, None, (top, left), dx, turned=True)
        else:
            direct.input_gradient(dy, weight, window, dx)

    def _plain_dw(self, dy: Array, x: Array, window: Window, dw: Array) -> None:
        if self._by_winograd(dw.shape[3], window):
            winograd_gradient.filter_gradient(x, dy, _corner(window), dw)
        else:
            direct_gradient.filter_gradient(x, dy, window, dw)

    def _filters_y(self, weight: Array, window: Window, places: int) -> bool:
        return self._by_winograd(weight.shape[3], window) and places * weight[0].size >= LEAST_PRODUCTS

    def _by_winograd(self, channels: int, window: Window) -> bool:
        return not self.precise and window.kernel in ((3, 3), (5, 5)) and window.stride == (1, 1) and channels >= 16


class _Group(NamedTuple):
    filters: slice
    first_in: int
    ins: int

    @property
    def first_out(self) -> int:
        return int(self.filters.start)

    @property
    def outs(self) -> int:
        return int(self.filters.stop - self.filters.start)


def _groups(groups: int, outs: int, ins: int) -> Iterator[_Group]:
    """Each group's filters and input channels."""
    out, in_ = outs // groups, ins // groups
    return (_Group(slice(g * out, (g + 1) * out), g * in_, in_) for g in range(groups))


def _corner(window: Window) -> tuple[int, int]:
    return window.padding[0][0], window.padding[1][0]


def _convolves(window: Window, groups: int, x: Array, weight: Array) -> bool:
    """Whether these are what it takes; depthwise convolution has its own kernels."""
    return (
        takes(x, weight)
        and x.ndim == 4
        and groups * weight.shape[-1] == x.shape[3]
        and weight.shape[1:3] == window.kernel
        and len(weight) % groups == 0
        and not groups == x.shape[3] == len(weight) > 1
        and min(window.out_size(x.shape[1:3])) > 0
    )
