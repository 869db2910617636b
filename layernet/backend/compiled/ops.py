"""The kernels that numba compiles: what they take of float32 work on the CPU; the rest is numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled import direct, winograd
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.window import Window


class CompiledOps(NumpyOps):
    """`precise` leaves Winograd's filtering out: its products round about six times as coarsely."""

    def __init__(self, precise: bool = False) -> None:
        super().__init__()
        self.precise = precise

    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> tuple[Array, Any]:
        if not _takes(x, weight) or groups > 1 or window.dilation != (1, 1):
            return super().conv2d(x, weight, bias, window, groups)
        y = np.empty((len(x), *window.out_size(x.shape[1:3]), len(weight)), dtype=x.dtype)
        if self._by_winograd(weight.shape[3], window):
            winograd.convolve(x, weight, bias, _corner(window), y)
        else:
            direct.convolve(x, weight, bias, window, y)
        return y, (x, weight, window, groups)

    def conv2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        x, weight, window, groups = res
        dy = np.ascontiguousarray(dy)
        if not _takes(x, weight, dy) or groups > 1 or window.dilation != (1, 1):
            return super().conv2d_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dx = np.empty_like(x) if need_dx else None
        dw = np.empty_like(weight) if need_dw else None
        fast = self._by_winograd(weight.shape[3], window)
        if dx is not None:
            top, left = _corner(window)
            if fast and top < weight.shape[1] and left < weight.shape[2]:
                r = weight.shape[1]
                winograd.convolve(dy, weight, None, (r - 1 - top, r - 1 - left), dx, turned=True)
            else:
                direct.input_gradient(dy, weight, window, dx)
        if dw is not None:
            (winograd.filter_gradient(x, dy, _corner(window), dw) if fast else direct.filter_gradient(x, dy, window, dw))
        return dx, dw, self._conv2d_db(dy) if need_db else None

    def linear(self, x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
        if not _takes(x, weight):
            return super().linear(x, weight, bias)
        y = np.empty((*x.shape[:-1], len(weight)), dtype=x.dtype)
        direct.linear(x.reshape(-1, x.shape[-1]), weight, bias, y.reshape(-1, len(weight)))
        return y, (x, weight)

    def linear_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        x, weight = res
        dy = np.ascontiguousarray(dy)
        if not _takes(x, weight, dy):
            return super().linear_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        rows = dy.reshape(-1, dy.shape[-1])
        dx = np.empty_like(x) if need_dx else None
        dw = np.empty_like(weight) if need_dw else None
        if dx is not None:
            direct.linear_input_gradient(rows, weight, dx.reshape(-1, x.shape[-1]))
        if dw is not None:
            direct.linear_weight_gradient(x.reshape(-1, x.shape[-1]), rows, dw)
        return dx, dw, self.channel_sum(dy) if need_db else None

    def _by_winograd(self, channels: int, window: Window) -> bool:
        kernel = window.kernel
        return (
            not self.precise
            and kernel in ((3, 3), (5, 5))
            and window.stride == (1, 1)
            and channels >= 16
        )


def _corner(window: Window) -> tuple[int, int]:
    return window.padding[0][0], window.padding[1][0]


def _takes(*arrays: Array) -> bool:
    """Whether the kernels take these arrays: float32, in C order, not empty."""
    return all(a.dtype == np.float32 and a.flags.c_contiguous and a.size for a in arrays)
