"""The kernels that numba compiles: what they take of float32 work on the CPU; the rest is numpy's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled import elementwise, given, norm, product
from layernet.backend.compiled.activation import CompiledActivationOps
from layernet.backend.compiled.arithmetic import CompiledArithmeticOps
from layernet.backend.compiled.arrays import by_channel, gradient, takes
from layernet.backend.compiled.convolution import CompiledConvOps, convolves
from layernet.backend.compiled.depthwise import CompiledDepthwiseOps
from layernet.backend.compiled.embedding import CompiledEmbeddingOps
from layernet.backend.compiled.group_norm import CompiledGroupNormOps
from layernet.backend.compiled.local_norm import CompiledLocalNormOps
from layernet.backend.compiled.loss import CompiledLossOps
from layernet.backend.compiled.optimizer import CompiledOptimizerOps
from layernet.backend.compiled.peaks import CompiledPeakOps
from layernet.backend.compiled.pool import CompiledPoolOps
from layernet.backend.compiled.randomness import CompiledRandomOps
from layernet.backend.compiled.rectifier import CompiledRectifierOps
from layernet.backend.compiled.resample import CompiledResampleOps
from layernet.backend.compiled.rows import CompiledRowOps
from layernet.backend.compiled.threads import ThreadedOps
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.window import Window


class CompiledOps(
    ThreadedOps,
    CompiledPoolOps,
    CompiledPeakOps,
    CompiledResampleOps,
    CompiledOptimizerOps,
    CompiledActivationOps,
    CompiledRectifierOps,
    CompiledEmbeddingOps,
    CompiledRowOps,
    CompiledLossOps,
    CompiledGroupNormOps,
    CompiledLocalNormOps,
    CompiledDepthwiseOps,
    CompiledConvOps,
    CompiledRandomOps,
    CompiledArithmeticOps,
    NumpyOps,
):
    """`precise` leaves Winograd's filtering out: it rounds about five times as coarsely."""

    def __init__(self, precise: bool = False) -> None:
        super().__init__()
        self.precise = precise

    # convolution and matrix products

    def conv2d(self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1) -> tuple[Array, Any]:
        if not convolves(window, groups, x, weight) or not by_channel(len(weight), bias):
            return super().conv2d(x, weight, bias, window, groups)
        return self._conv2d(x, weight, bias, window, groups, False), (x, weight, window, groups)

    def conv2d_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        x, weight, window, groups = res
        if not convolves(window, groups, x, weight):
            return super().conv2d_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dy = gradient(dy, (len(x), *window.out_size(x.shape[1:3]), len(weight)))
        return *self._conv2d_gradients(dy, x, weight, window, groups, need_dx, need_dw), self.channel_sum(
            dy
        ) if need_db else None

    def conv2d_relu(
        self, x: Array, weight: Array, bias: Array | None, window: Window, groups: int = 1
    ) -> tuple[Array, Any]:
        if not convolves(window, groups, x, weight) or not by_channel(len(weight), bias):
            return super().conv2d_relu(x, weight, bias, window, groups)
        y = self._conv2d(x, weight, bias, window, groups, True)
        return y, ((x, weight, window, groups), y)

    def conv2d_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        (x, weight, window, groups), y = res
        if not convolves(window, groups, x, weight):
            return super().conv2d_relu_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dz, db = elementwise.relu_gradient_and_sum(gradient(dy, y.shape), y)
        gradients = self._conv2d_gradients(dz, x, weight, window, groups, need_dx, need_dw)
        return *gradients, db.astype(dz.dtype) if need_db else None

    def _conv2d_gradients(
        self, dy: Array, x: Array, weight: Array, window: Window, groups: int, need_dx: bool, need_dw: bool
    ) -> tuple[Array | None, Array | None]:
        dx = self._conv2d_dx(dy, x.shape, weight, window, groups) if need_dx else None
        return dx, self._conv2d_dw(dy, x, weight.shape, window, groups) if need_dw else None

    def linear(self, x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
        if not _multiplies(x, weight, bias):
            return super().linear(x, weight, bias)
        return self._linear(x, weight, bias, False), (x, weight)

    def linear_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        x, weight = res
        if not takes(x, weight):
            return super().linear_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dy = gradient(dy, (*x.shape[:-1], len(weight)))
        return *self._linear_gradients(dy, x, weight, need_dx, need_dw), self.channel_sum(dy) if need_db else None

    def linear_relu(self, x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
        if not _multiplies(x, weight, bias):
            return super().linear_relu(x, weight, bias)
        y = self._linear(x, weight, bias, True)
        return y, ((x, weight), y)

    def linear_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        (x, weight), y = res
        if not takes(x, weight):
            return super().linear_relu_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dz, db = elementwise.relu_gradient_and_sum(gradient(dy, y.shape), y)
        return *self._linear_gradients(dz, x, weight, need_dx, need_dw), db.astype(dz.dtype) if need_db else None

    def _linear(self, x: Array, weight: Array, bias: Array | None, relu: bool) -> Array:
        y = np.empty((*x.shape[:-1], len(weight)), dtype=x.dtype)
        product.linear(x.reshape(-1, x.shape[-1]), weight, _row(bias), y.reshape(-1, len(weight)), relu)
        return y

    def _linear_gradients(
        self, dy: Array, x: Array, weight: Array, need_dx: bool, need_dw: bool
    ) -> tuple[Array | None, Array | None]:
        rows = dy.reshape(-1, dy.shape[-1])
        dx = np.empty_like(x) if need_dx else None
        dw = np.empty_like(weight) if need_dw else None
        if dx is not None:
            product.linear_input_gradient(rows, weight, dx.reshape(-1, x.shape[-1]))
        if dw is not None:
            product.linear_weight_gradient(x.reshape(-1, x.shape[-1]), rows, dw)
        return dx, dw

    # channels

    def channel_sum(self, a: Array) -> Array:
        if not takes(a):
            return super().channel_sum(a)
        return elementwise.channel_sum(a).astype(a.dtype)

    def relu(self, x: Array) -> tuple[Array, Any]:
        if not takes(x):
            return super().relu(x)
        y = elementwise.relu(x)
        return y, y

    def relu_backward(self, dy: Array, res: Any) -> Array:
        if res.dtype != dy.dtype or not takes(res):
            return super().relu_backward(dy, res)
        return elementwise.relu_gradient(gradient(dy, res.shape), res)

    # batch norm

    def batch_norm(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        return self._batch_norm(x, weight, bias, eps, False, None) or super().batch_norm(x, weight, bias, eps)

    def batch_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        if not isinstance(res, _Normalised):
            return super().batch_norm_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        return self._batch_norm_gradients(dy, res, need_dx)[:3]

    def batch_norm_relu(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float, shortcut: Array | None = None
    ) -> tuple[Array, Array, Array, Any]:
        result = self._batch_norm(x, weight, bias, eps, True, shortcut)
        return result or super().batch_norm_relu(x, weight, bias, eps, shortcut)

    def batch_norm_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None, Array]:
        if not isinstance(res, _Normalised):
            return super().batch_norm_relu_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dx, dw, db, dz = self._batch_norm_gradients(dy, res, need_dx)
        return dx, dw, db, dz

    def batch_norm_given(
        self, x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Any]:
        result = _norm_given(x, mean, var, weight, bias, eps, False, None)
        return result or super().batch_norm_given(x, mean, var, weight, bias, eps)

    def batch_norm_given_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        if not isinstance(res, _Normalised):
            return super().batch_norm_given_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        return _norm_given_gradients(dy, res, need_dx, need_dw or need_db)[:3]

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
        result = _norm_given(x, mean, var, weight, bias, eps, True, shortcut)
        return result or super().batch_norm_given_relu(x, mean, var, weight, bias, eps, shortcut)

    def batch_norm_given_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None, Array]:
        if not isinstance(res, _Normalised):
            return super().batch_norm_given_relu_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db)
        dx, dw, db, dz = _norm_given_gradients(dy, res, need_dx, need_dw or need_db)
        return dx, dw, db, dz

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
        vectors = (own, mean, var, weight, bias)
        if not takes(filters, *vectors) or not by_channel(len(filters), *vectors):
            return super().fold_norm(filters, own, mean, var, weight, bias, eps)
        return given.fold(filters, own, mean, var, weight, bias, eps)

    def _batch_norm(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float, relu: bool, shortcut: Array | None
    ) -> tuple[Array, Array, Array, Any] | None:
        """None where it is numpy's to do."""
        if not _normalises(x, weight, bias, shortcut):
            return None
        mean, var = norm.moments(x)
        if not np.isfinite(var).all():  # squares too large for float32
            return None
        rstd = 1.0 / np.sqrt(var + eps)
        scale = rstd if weight is None else rstd * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        y = norm.scale(x, scale, shift, relu, shortcut)
        return y, mean.astype(x.dtype), var.astype(x.dtype), _kept(x, y, mean, rstd, scale, shift, relu, shortcut)

    def _batch_norm_gradients(
        self, dy: Array, res: _Normalised, need_dx: bool
    ) -> tuple[Array | None, Array, Array, Array]:
        dy = gradient(dy, res.x.shape)
        x, y, mean, rstd, scale, shift = res
        db, dot, dz = norm.gradient_sums(x, dy, mean, y, None if shift is None else (scale, shift))
        dx = None
        if need_dx:
            count = x.size // x.shape[-1]
            slope = -scale * rstd * rstd * dot / count
            dx = norm.gradient(x, dz, scale, slope, -scale * db / count - slope * mean, shift)
        return dx, (dot * rstd).astype(dy.dtype), db.astype(dy.dtype), dz


class _Normalised(NamedTuple):
    """What batch norm keeps: its input, and per channel mean, 1 / std and scale.

    For a ReLU behind it also the shift, from which x tells what was above 0; or y where a shortcut was added.
    """

    x: Array
    y: Array | None
    mean: Array
    rstd: Array
    scale: Array
    shift: Array | None


def _kept(
    x: Array, y: Array, mean: Array, rstd: Array, scale: Array, shift: Array, relu: bool, shortcut: Array | None
) -> _Normalised:
    plain = shortcut is None
    return _Normalised(x, y if relu and not plain else None, mean, rstd, scale, shift if relu and plain else None)


def _norm_given(
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    relu: bool,
    shortcut: Array | None,
) -> tuple[Array, _Normalised] | None:
    """None where it is numpy's to do."""
    if not _normalises(x, weight, bias, shortcut) or not by_channel(x.shape[-1], mean, var):
        return None
    if not takes(mean, var, weight, bias):
        return None
    y, (means, rstd, scale, shift) = given.normalise(x, mean, var, weight, bias, eps, relu, shortcut)
    return y, _kept(x, y, means, rstd, scale, shift, relu, shortcut)


def _norm_given_gradients(
    dy: Array, res: _Normalised, need_dx: bool, need_sums: bool
) -> tuple[Array | None, Array | None, Array | None, Array]:
    dy = gradient(dy, res.x.shape)
    dx = dw = db = None
    dz = dy
    if need_sums or res.y is not None:
        line = None if res.shift is None else (res.scale, res.shift)
        sums, dots, dz = norm.gradient_sums(res.x, dy, res.mean, res.y, line)
        dw, db = (dots * res.rstd).astype(dy.dtype), sums.astype(dy.dtype)
    if need_dx:
        none = np.zeros_like(res.scale)
        dx = norm.gradient(res.x, dz, res.scale, none, none, res.shift)
    return dx, dw, db, dz


def _row(bias: Array | None) -> Array | None:
    """The biases as kernels read them."""
    return None if bias is None else np.ascontiguousarray(bias, dtype=np.float32)


def _multiplies(x: Array, weight: Array, bias: Array | None) -> bool:
    return takes(x, weight) and x.shape[-1:] == weight.shape[1:] and by_channel(len(weight), bias)


def _normalises(x: Array, weight: Array | None, bias: Array | None, shortcut: Array | None) -> bool:
    return (
        takes(x, shortcut) and by_channel(x.shape[-1], weight, bias) and (shortcut is None or shortcut.shape == x.shape)
    )
