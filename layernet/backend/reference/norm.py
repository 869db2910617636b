"""Normalisation: batch norm (with the statistics of the batch, or given ones), layer, group and RMS norm."""

from __future__ import annotations

import math
from typing import Any

from layernet.backend import Array
from layernet.backend.reference.channels import ChannelOps

# Each norm maps a group of n numbers x (batch norm: one channel of the whole batch; layer norm: the channels of one
# place; group norm: some channels of one example) to xhat = (x - m) r, with the mean m, the variance
# v = mean((x - m)^2) and r = 1 / sqrt(v + eps).
#
# Their backward. Let g be the gradient with respect to xhat and c = x - m, so that mean(c) = 0. A change d of x moves
#     m by mean(d),   v by 2 mean(c (d - mean(d))) = 2 mean(c d),   r by -1/2 r^3 dv = -r^3 mean(c d),
# and so xhat by r (d - mean(d)) - c r^3 mean(c d). The loss moves by the sum of g times that:
#     r sum(g d) - r mean(d) sum(g) - r^3 mean(c d) sum(g c).
# What stands beside each element of d is the gradient:
#     dx = r (g - mean(g) - c r^2 mean(g c)) = r (g - mean(g) - xhat mean(g xhat)).
# It is orthogonal to 1 and, but for eps, to c: shifting or scaling the group changes nothing.
#
# RMS norm leaves the mean where it is: with m = 0 throughout, dx = r (g - xhat mean(g xhat)).
#
# Mean squares divide before they sum, where a long sum of large squares would overflow.


class NormOps(ChannelOps):
    def batch_norm(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        """(y, mean, var, res): each channel of x (..., C) brought to mean 0 and variance 1, then scaled and shifted.

        `mean` and `var` (C,) are those of the batch, the variance divided by the count (biased).
        """
        count = x.size // x.shape[-1]
        mean = self.channel_sum(x) / count
        centred = self.channel_affine(x, shift=-mean)  # two passes: E[x^2] - E[x]^2 would lose a small variance
        var = self.channel_mean_square(centred)
        rstd, scale = self._rstd_and_scale(var, weight, eps)
        return self.channel_affine(centred, scale, bias), mean, var, (centred, rstd, scale)

    def batch_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dweight, dbias) through the batch's own statistics."""
        centred, rstd, scale = res
        count = dy.size // dy.shape[-1]
        db = self.channel_sum(dy) if need_db or need_dx else None
        dot = self.channel_dot(dy, centred) if need_dw or need_dx else None
        dx = None
        if need_dx:
            dx = self.channel_affine(dy, scale, -scale * db / count)
            # in this order, no factor leaves the range of float32 for x of 1e18
            dx += self.channel_affine(centred, -(scale * rstd) * (rstd * dot / count))
        return dx, dot * rstd if need_dw else None, db if need_db else None

    def batch_norm_given(
        self, x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Any]:
        """`batch_norm` with given statistics: one scale and one shift a channel."""
        rstd, scale, shift = self._line(mean, var, weight, bias, eps)
        return self.channel_affine(x, scale, shift), (x, mean, rstd, scale)

    def batch_norm_given_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dweight, dbias) with constant statistics."""
        x, mean, rstd, scale = res
        dx = self.channel_affine(dy, scale) if need_dx else None
        dw = self.channel_dot(dy, self.channel_affine(x, shift=-mean)) * rstd if need_dw else None
        return dx, dw, self.channel_sum(dy) if need_db else None

    def _rstd_and_scale(self, var: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
        """1 / sqrt(var + eps), and that times the weight."""
        rstd = 1.0 / self.xp.sqrt(var + eps)
        return rstd, rstd if weight is None else rstd * weight

    def _line(
        self, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array]:
        """(rstd, scale, shift): (x - mean) * rstd * weight + bias is x * scale + shift."""
        rstd, scale = self._rstd_and_scale(var, weight, eps)
        return rstd, scale, -mean * scale if bias is None else bias - mean * scale

    def layer_norm(self, x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Any]:
        """The last axis of x (..., C) brought to mean 0 and variance 1, then scaled and shifted per channel."""
        count = x.shape[-1]
        xhat = x - self.row_sum(x) / count
        rstd = 1.0 / self.xp.sqrt(self.row_mean_square(xhat) + eps)
        xhat *= rstd
        y = xhat if weight is None and bias is None else self.channel_affine(xhat, weight, bias)
        return y, (xhat, rstd, weight)

    def layer_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dweight, dbias)."""
        xhat, rstd, weight = res
        dx = None
        if need_dx:
            g = dy if weight is None else self.channel_affine(dy, weight)
            count = dy.shape[-1]
            dx = g - self.row_sum(g) / count
            dx -= xhat * (self.row_dot(g, xhat) / count)
            dx *= rstd
        dw = self.channel_dot(dy, xhat) if need_dw else None
        return dx, dw, self.channel_sum(dy) if need_db else None

    def group_norm(
        self, x: Array, groups: int, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        """(y, mean, var, res): every group of neighbouring channels of each example of x (N, ..., C) brought to mean 0
        and variance 1, then scaled and shifted per channel. `mean` and `var` (N, groups) are biased.
        """
        flat = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])
        count = flat.shape[1] * x.shape[-1] // groups
        mean = self._over_groups(self.example_sum(flat), groups) / count
        xhat = flat - self._to_channels(mean, x.shape[-1])
        var = self._over_groups(self.example_dot(xhat, xhat * (1 / count)), groups)
        rstd = self._to_channels(1.0 / self.xp.sqrt(var + eps), x.shape[-1])
        xhat *= rstd
        y = xhat if weight is None and bias is None else self.channel_affine(xhat, weight, bias)
        return y.reshape(x.shape), mean[..., 0], var[..., 0], (xhat, rstd, weight, groups)

    def group_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True, need_db: bool = True
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dweight, dbias). Sums over the places serve both the parameters and the means of the groups."""
        xhat, rstd, weight, groups = res
        flat = dy.reshape(xhat.shape)
        sums = self.example_sum(flat) if need_db or need_dx else None
        dots = self.example_dot(flat, xhat) if need_dw or need_dx else None
        dx = None
        if need_dx:
            scale = rstd if weight is None else rstd * weight
            count = flat.shape[1] * flat.shape[2] // groups
            shift, slope = (
                self._to_channels(self._over_groups(part if weight is None else part * weight, groups), flat.shape[2])
                for part in (sums, dots)
            )
            dx = flat * scale
            dx -= xhat * (rstd * slope / count)
            dx -= rstd * shift / count
            dx = dx.reshape(dy.shape)
        dw = None if dots is None or not need_dw else dots.sum(axis=(0, 1))
        return dx, dw, None if sums is None or not need_db else sums.sum(axis=(0, 1))

    def _over_groups(self, a: Array, groups: int) -> Array:
        """(N, 1, C) -> (N, groups, 1): the sum over the channels of each group."""
        return a.reshape(len(a), groups, a.shape[-1] // groups).sum(axis=-1, keepdims=True)

    def _to_channels(self, a: Array, channels: int) -> Array:
        """(N, groups, 1) -> (N, 1, C): every channel gets its group's number."""
        return self.xp.repeat(a.reshape(len(a), 1, a.shape[1]), channels // a.shape[1], axis=-1)

    def rms_norm(self, x: Array, weight: Array | None, eps: float) -> tuple[Array, Any]:
        """The last axis of x (..., C) brought to mean square 1, then scaled per channel."""
        rstd = 1.0 / self.xp.sqrt(self.row_mean_square(x) + eps)
        xhat = x * rstd
        return xhat if weight is None else self.channel_affine(xhat, weight), (xhat, rstd, weight)

    def rms_norm_backward(
        self, dy: Array, res: Any, *, need_dx: bool = True, need_dw: bool = True
    ) -> tuple[Array | None, Array | None]:
        """(dx, dweight)."""
        xhat, rstd, weight = res
        dx = None
        if need_dx:
            g = dy if weight is None else self.channel_affine(dy, weight)
            dx = g - xhat * (self.row_dot(g, xhat) / dy.shape[-1])
            dx *= rstd
        return dx, self.channel_dot(dy, xhat) if need_dw else None
