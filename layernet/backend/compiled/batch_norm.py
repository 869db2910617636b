"""Batch norm, by the moments of its batch or by given ones, alone or with a shortcut and a ReLU behind it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled import given, norm
from layernet.backend.compiled.arrays import by_channel, gradient, takes
from layernet.backend.reference.fused import FusedOps


class CompiledBatchNormOps(FusedOps):
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
        rstd, scale, shift = self._line(mean, var, weight, bias, eps)
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


def _normalises(x: Array, weight: Array | None, bias: Array | None, shortcut: Array | None) -> bool:
    return (
        takes(x, shortcut) and by_channel(x.shape[-1], weight, bias) and (shortcut is None or shortcut.shape == x.shape)
    )
