"""Transposed convolution and grouped convolution, of what plain convolution has: its gradients, and slices of channels.

What is asked for here are the steps of the reference's formulas; convolution itself does not come this way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.compiled import direct, direct_gradient
from layernet.backend.compiled.arrays import takes
from layernet.backend.reference.channels import ChannelOps
from layernet.backend.reference.conv import ConvOps
from layernet.backend.window import Window


class CompiledTransposedOps(ConvOps, ChannelOps):
    def _conv2d_dx(self, dy: Array, shape: Shape, weight: Array, window: Window, groups: int) -> Array:
        dy, weight = np.ascontiguousarray(dy), np.ascontiguousarray(weight)
        fits = dy.shape == (len(dy), *window.out_size((shape[1], shape[2])), len(weight))
        if window.dilation != (1, 1) or not takes(dy, weight) or not fits or shape[3] != weight.shape[3] * groups:
            return super()._conv2d_dx(dy, shape, weight, window, groups)
        dx = np.empty(shape, dtype=np.float32)
        if groups == 1:
            direct.input_gradient(dy, weight, window, dx)
            return dx
        for outs, ins in _slices(groups, dy.shape[3], shape[3]):
            part = np.empty((*shape[:3], shape[3] // groups), dtype=np.float32)
            direct.input_gradient(np.ascontiguousarray(dy[..., outs]), weight[outs], window, part)
            dx[..., ins] = part
        return dx

    def _conv2d_dw(self, dy: Array, x: Array, shape: Shape, window: Window, groups: int) -> Array:
        dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
        fits = dy.shape == (len(x), *window.out_size(x.shape[1:3]), shape[0]) and x.shape[3] == shape[3] * groups
        if window.dilation != (1, 1) or not takes(dy, x) or not fits:
            return super()._conv2d_dw(dy, x, shape, window, groups)
        dw = np.empty(shape, dtype=np.float32)
        for outs, ins in _slices(groups, dy.shape[3], x.shape[3]):
            seen, sent = (a if groups == 1 else np.ascontiguousarray(a) for a in (x[..., ins], dy[..., outs]))
            direct_gradient.filter_gradient(seen, sent, window, dw[outs])
        return dw

    def _conv2d_db(self, dy: Array) -> Array:
        return self.channel_sum(dy)


class CompiledGroupedOps(CompiledTransposedOps):
    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> tuple[Array, Any]:
        if groups == 1 or window.dilation != (1, 1) or not takes(x, weight, bias):
            return super().conv2d(x, weight, bias, window, groups)
        y = np.empty((len(x), *window.out_size(x.shape[1:3]), len(weight)), dtype=np.float32)
        for outs, ins in _slices(groups, len(weight), x.shape[3]):
            own = None if bias is None else np.ascontiguousarray(bias[outs])
            y[..., outs] = self.conv2d(np.ascontiguousarray(x[..., ins]), weight[outs], own, window)[0]
        return y, (x, weight, window, groups)

    def conv2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        x, weight, window, groups = res
        if groups == 1 or window.dilation != (1, 1) or not takes(x, weight):
            return super().conv2d_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dx = self._conv2d_dx(dy, x.shape, weight, window, groups) if need_dx else None
        dw = self._conv2d_dw(dy, x, weight.shape, window, groups) if need_dw else None
        return dx, dw, self._conv2d_db(dy) if need_db else None


def _slices(groups: int, outs: int, ins: int) -> list[tuple[slice, slice]]:
    """Each group's output and input channels."""
    out, in_ = outs // groups, ins // groups
    return [(slice(g * out, (g + 1) * out), slice(g * in_, (g + 1) * in_)) for g in range(groups)]
