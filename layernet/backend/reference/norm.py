"""Normalisation: subtract a mean, divide by a standard deviation, scale and shift.

Both norms compute n = (x - mean) / s with s = sqrt(var + eps) over a set of m values, then y = w n + b.

Backward. Let g = dL/dn = w dy. Each x_i reaches every n_j of its set: directly (1/s for j = i), through the mean
(-1/(m s) for all j), and through s: ds/dx_i = (x_i - mean) / (m s) = n_i / m, so dn_j/dx_i gains -n_j n_i / (m s).
Summed over j:

    dL/dx_i = (g_i - mean(g) - n_i mean(g n)) / s

with both means over the set. The parameters see dL/dw = sum dy n and dL/db = sum dy, over all that share them.
"""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class NormOps(KernelFamily):
    def batch_norm(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        """Normalise each channel (last axis) over all other axes: (y, mean, var, res); var is the biased one."""
        rows = x.reshape(-1, x.shape[-1])
        mean = rows.mean(axis=0)
        centred = rows - mean
        var = (centred * centred).mean(axis=0)
        inverse = 1.0 / self.xp.sqrt(var + eps)
        normal = centred * inverse
        return _affine(normal, weight, bias).reshape(x.shape), mean, var, (normal, inverse, weight)

    def batch_norm_backward(self, dy: Array, res: Any, *, need_dx: bool = True) -> tuple[Array | None, Array, Array]:
        """(dx, dweight, dbias)"""
        normal, inverse, weight = res
        rows = dy.reshape(normal.shape)
        dbias, dweight = rows.sum(axis=0), (rows * normal).sum(axis=0)
        if not need_dx:
            return None, dweight, dbias
        scale = inverse if weight is None else inverse * weight  # the means of g are those of dy, times w
        dx = (rows - dbias / len(rows) - normal * (dweight / len(rows))) * scale
        return dx.reshape(dy.shape), dweight, dbias

    def layer_norm(self, x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Any]:
        """Normalise each example's last axis: (y, res)."""
        centred = x - x.mean(axis=-1, keepdims=True)
        inverse = 1.0 / self.xp.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
        normal = centred * inverse
        return _affine(normal, weight, bias), (normal, inverse, weight)

    def layer_norm_backward(self, dy: Array, res: Any, *, need_dx: bool = True) -> tuple[Array | None, Array, Array]:
        """(dx, dweight, dbias)"""
        normal, inverse, weight = res
        axes = tuple(range(dy.ndim - 1))
        dweight, dbias = (dy * normal).sum(axis=axes), dy.sum(axis=axes)
        if not need_dx:
            return None, dweight, dbias
        g = dy if weight is None else dy * weight
        mean_g, mean_gn = g.mean(axis=-1, keepdims=True), (g * normal).mean(axis=-1, keepdims=True)
        return (g - mean_g - normal * mean_gn) * inverse, dweight, dbias


def _affine(normal: Array, weight: Array | None, bias: Array | None) -> Array:
    if weight is None:
        return normal.copy()  # what backward needs must not be the caller's output
    return normal * weight + bias
