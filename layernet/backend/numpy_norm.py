"""Batch norm on the CPU, and what follows it: in as few passes over memory as its sums allow."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.numpy_channels import NumpyChannelOps, dot, folded, widen
from layernet.backend.numpy_threads import passes
from layernet.backend.reference.norm import NormOps

Gradients = tuple[Array | None, Array | None, Array | None]


class NumpyNormOps(NumpyChannelOps, NormOps):
    """The reference's operations on each element, in its order; with and without ReLU they are the same."""

    def batch_norm(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        return self._normed(x, weight, bias, eps, None, False)

    def batch_norm_relu(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float, shortcut: Array | None = None
    ) -> tuple[Array, Array, Array, Any]:
        """relu(batch_norm(x) + shortcut)"""
        y, mean, var, res = self._normed(x, weight, bias, eps, shortcut, True)
        return y, mean, var, (res, y)

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
        rstd, scale, shift = self._line(mean, var, weight, bias, eps)
        y = self.affine(x, scale, shift, shortcut, relu=True)
        return y, ((x, mean, rstd, scale), y)

    def batch_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> Gradients:
        if not need_dx and not need_dw:
            return None, None, self.channel_sum(dy) if need_db else None
        return self._normed_gradients(dy, res, None, need_dx, need_dw, need_db)[:3]

    def batch_norm_relu_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None, Array]:
        """(dx, dweight, dbias, gradient of the shortcut)"""
        inner, y = res
        return self._normed_gradients(dy, inner, y, need_dx, need_dw, need_db)

    def _normed(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float, shortcut: Array | None, relu: bool
    ) -> tuple[Array, Array, Array, Any]:
        mean = self.channel_sum(x) / (x.size // x.shape[-1])
        centred, var = self._centred(x, mean)
        rstd, scale = self._rstd_and_scale(var, weight, eps)
        return self.affine(centred, scale, bias, shortcut, relu), mean, var, (centred, rstd, scale)

    def _centred(self, x: Array, mean: Array) -> tuple[Array, Array]:
        """x - mean, and its mean square."""
        wide, fold = widen(x)
        shift = np.tile(-mean, fold)
        centred = np.empty(wide.shape, dtype=x.dtype)

        def task(rows: slice) -> Array:
            part = np.add(wide[rows], shift, out=centred[rows])
            return dot(part, part)

        with self.quiet():  # as in `channel_mean_square`
            var = folded(passes(wide.shape, task), x, fold) * (x.shape[-1] / x.size)
        centred = centred.reshape(x.shape)
        return centred, var if np.isfinite(var).all() else self.channel_mean_square(centred)

    def _normed_gradients(
        self, dy: Array, res: Any, y: Array | None, need_dx: bool, need_dw: bool, need_db: bool
    ) -> tuple[Array | None, Array | None, Array | None, Array]:
        """The fourth is dy where y > 0; without y, dy."""
        centred, rstd, scale = res
        count = dy.size // dy.shape[-1]
        db, products, dz = self._sums(dy, centred, y)
        dx = None
        if need_dx:
            # in this order, no factor leaves the range of float32 for x of 1e18
            slope = -(scale * rstd) * (rstd * products / count)
            dx = self._two_slopes(dz, scale, -scale * db / count, centred, slope)
        return dx, products * rstd if need_dw else None, db if need_db else None, dz

    def _sums(self, dy: Array, centred: Array, y: Array | None) -> tuple[Array, Array, Array]:
        """The sums of dz and of dz * centred, and dz: dy where y > 0."""
        (source, fold), other = widen(dy), widen(centred)[0]
        ones = np.ones(len(source), dtype=dy.dtype)
        dz = source if y is None else np.empty_like(source)
        out = None if y is None else y.reshape(source.shape)

        def task(rows: slice) -> tuple[Array, Array]:
            part = dz[rows]
            if out is not None:
                np.multiply(source[rows], out[rows] > 0, out=part)
            return ones[rows] @ part, dot(part, other[rows])

        found = passes(source.shape, task)
        sums, products = (folded([pair[i] for pair in found], dy, fold) for i in (0, 1))
        return sums, products, dy if y is None else dz.reshape(dy.shape)

    def _two_slopes(self, a: Array, slope: Array, shift: Array, b: Array, other: Array) -> Array:
        """a * slope + shift + b * other."""
        (wide, fold), beside = widen(a), widen(b)[0]
        slope, shift, other = (np.tile(v, fold) for v in (slope, shift, other))
        dx = np.empty(wide.shape, dtype=a.dtype)

        def task(rows: slice) -> None:
            part = np.multiply(wide[rows], slope, out=dx[rows])
            part += shift
            part += beside[rows] * other

        passes(wide.shape, task)
        return dx.reshape(a.shape)
