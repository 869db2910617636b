"""A weight written as length times direction."""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class WeightNormOps(KernelFamily):
    def weight_norm(self, v: Array, g: Array) -> tuple[Array, Any]:
        """w[o] = g[o] u[o] with u[o] = v[o] / |v[o]|; 0 where v[o] is: (out, ...) and (out, 1, ...) -> (out, ...)."""
        axes = tuple(range(1, v.ndim))
        size = self.xp.abs(v).max(axis=axes, keepdims=True)
        size = self.xp.where(size > 0, size, size + 1)  # squares of v / size neither overflow nor vanish
        v = v / size
        norm = self.xp.sqrt((v * v).sum(axis=axes, keepdims=True))
        norm = self.xp.where(norm > 0, norm, norm + 1)
        u = v / norm
        return g * u, (u, g, norm, size)

    def weight_norm_backward(self, dw: Array, res: Any) -> tuple[Array, Array]:
        """(dv, dg). As w = g u: dg = u dw, du = g dw; du/dv takes away what lies along u, and divides by |v|.

        For v = 0, u is 0 too and so is dg; dv, which has no limit there, is made 0.
        """
        u, g, norm, size = res
        along = (u * dw).sum(axis=tuple(range(1, u.ndim)), keepdims=True)
        alive = (u * u).sum(axis=tuple(range(1, u.ndim)), keepdims=True) > 0
        return self.xp.where(alive, (dw - along * u) * (g / norm / size), 0 * dw), along
