"""Neighbours computed by one kernel, where a device has one: here, one after the other in one array."""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.reference.activation import ActivationOps
from layernet.backend.reference.conv import ConvOps
from layernet.backend.reference.norm import NormOps
from layernet.backend.reference.pool import PoolOps
from layernet.backend.window import Window


class FusedOps(ActivationOps, ConvOps, NormOps, PoolOps):
    def conv2d_relu(
        self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1
    ) -> tuple[Array, Any]:
        """relu(conv2d(x))"""
        y, res = self.conv2d(x, weight, bias, window, groups)
        self.xp.maximum(y, 0, out=y)
        return y, (res, y)

    def conv2d_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dw, db)"""
        inner, y = res
        dz = self.relu_backward(dy, y)
        return self.conv2d_backward(dz, inner, need_dx=need_dx, need_dw=need_dw, need_db=need_db)

    def conv2d_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int, pool: Window, relu: bool
    ) -> tuple[Array, Any]:
        """max_pool2d(conv2d(x)), with `relu` that of this"""
        z, res = self.conv2d(x, weight, bias, window, groups)
        y, pooled = (self.max_pool2d_relu if relu else self.max_pool2d)(z, pool)
        return y, (res, pooled, relu)

    def conv2d_max_pool2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dw, db)"""
        inner, pooled, relu = res
        dz = (self.max_pool2d_relu_backward if relu else self.max_pool2d_backward)(dy, pooled)
        return self.conv2d_backward(dz, inner, need_dx=need_dx, need_dw=need_dw, need_db=need_db)

    def linear_relu(self, x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
        """relu(linear(x))"""
        y, res = self.linear(x, weight, bias)
        self.xp.maximum(y, 0, out=y)
        return y, (res, y)

    def linear_relu_backward(
        self,
        dy: Array,
        res: Any,
        *,
        need_dx: bool = True,
        need_dw: bool = True,
        need_db: bool = True,
        dw: Array | None = None,
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dw, db), with `dw` as linear_backward takes it"""
        inner, y = res
        dz = self.relu_backward(dy, y)
        return self.linear_backward(dz, inner, need_dx=need_dx, need_dw=need_dw, need_db=need_db, dw=dw)

    def max_pool2d_relu(self, x: Array, window: Window) -> tuple[Array, Any]:
        """relu(max_pool2d(x)), which is max_pool2d(relu(x)), too"""
        y, res = self.max_pool2d(x, window)
        self.xp.maximum(y, 0, out=y)
        return y, (res, y)

    def max_pool2d_relu_backward(self, dy: Array, res: Any) -> Array:
        """dx"""
        inner, y = res
        return self.max_pool2d_backward(self.relu_backward(dy, y), inner)

    def batch_norm_relu(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float, shortcut: Array | None = None
    ) -> tuple[Array, Array, Array, Any]:
        """(relu(batch_norm(x) + shortcut), mean, var, res)"""
        y, mean, var, res = self.batch_norm(x, weight, bias, eps)
        if shortcut is not None:
            y += shortcut
        self.xp.maximum(y, 0, out=y)
        return y, mean, var, (res, y)

    def batch_norm_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None, Array]:
        """(dx, dweight, dbias, gradient of the shortcut)"""
        inner, y = res
        dz = self.relu_backward(dy, y)
        dx, dw, db = self.batch_norm_backward(dz, inner, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        return dx, dw, db, dz

    def batch_norm_given_relu(
        self,
        x: Array,
        mean: Array,
        var: Array,
        weight: Array | None,
        bias: Array | None,
        eps: float,
        shortcut: Array | None = None,
    ) -> tuple[Array, Any]:
        """relu(batch_norm_given(x) + shortcut)"""
        y, res = self.batch_norm_given(x, mean, var, weight, bias, eps)
        if shortcut is not None:
            y += shortcut
        self.xp.maximum(y, 0, out=y)
        return y, (res, y)

    def batch_norm_given_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None, Array]:
        """(dx, dweight, dbias, gradient of the shortcut)"""
        inner, y = res
        dz = self.relu_backward(dy, y)
        return *self.batch_norm_given_backward(dz, inner, need_dx=need_dx, need_dw=need_dw, need_db=need_db), dz

    def fold_norm(
        self,
        filters: Array,
        own: Array | None,
        mean: Array,
        var: Array,
        weight: Array | None,
        bias: Array | None,
        eps: float,
    ) -> tuple[Array, Array]:
        """(filters, biases) of a convolution that does what one with `filters` (out, ...) and biases `own` does, and
        then batch_norm_given: norm(f x + own) = (scale f) x + (own - mean) scale + bias, scale = weight / deviation.
        """
        _, scale = self._rstd_and_scale(var, weight, eps)
        centre = -mean if own is None else own - mean
        offset = centre * scale
        return filters * scale.reshape(-1, *[1] * (filters.ndim - 1)), offset if bias is None else offset + bias
