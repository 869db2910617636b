"""Channel sums and scalings, and elementwise kernels of many steps, as numpy runs them fast."""

from __future__ import annotations

from functools import cache

import numpy as np

from layernet.backend import Array
from layernet.backend.reference.activation import ActivationOps
from layernet.backend.reference.channels import ChannelOps

_WIDTH = 256  # elements in a row: enough to forget what starting numpy's inner loop costs
_BLOCK = 32768  # elements: an elementwise kernel's temporaries stay in the cache


class NumpyChannelOps(ChannelOps):
    """(M, C) seen as (M / r, r C): numpy's inner loops run over r C elements, not C.

    With 16 channels a sum is ten times faster. The r partial sums that are folded at the end also
    round less than one long sum.
    """

    def channel_sum(self, a: Array) -> Array:
        wide, fold = _widen(a)
        return (np.ones(len(wide), dtype=a.dtype) @ wide).reshape(fold, a.shape[-1]).sum(axis=0)

    def channel_dot(self, a: Array, b: Array) -> Array:
        wide, fold = _widen(a)
        products = np.einsum("ij,ij->j", wide, _widen(b)[0])
        return products.reshape(fold, a.shape[-1]).sum(axis=0)

    def channel_mean_square(self, a: Array) -> Array:
        with self.quiet():  # the plain sum saves an array; where it overflows, divide first
            found = self.channel_dot(a, a) * (a.shape[-1] / a.size)
        return found if np.isfinite(found).all() else super().channel_mean_square(a)

    def channel_affine(self, a: Array, scale: Array | None = None, shift: Array | None = None) -> Array:
        wide, fold = _widen(a)
        y = super().channel_affine(wide, *(v if v is None else np.tile(v, fold) for v in (scale, shift)))
        return y.reshape(a.shape)

    def row_sum(self, a: Array) -> Array:
        # BLAS and einsum run over short rows without starting a loop for each
        return (a.reshape(-1, a.shape[-1]) @ np.ones(a.shape[-1], dtype=a.dtype)).reshape(*a.shape[:-1], 1)

    def row_dot(self, a: Array, b: Array) -> Array:
        return np.einsum("...j,...j->...", a, b)[..., None]

    def row_mean_square(self, a: Array) -> Array:
        with self.quiet():
            found = self.row_dot(a, a) * (1 / a.shape[-1])
        return found if np.isfinite(found).all() else super().row_mean_square(a)

    def example_sum(self, a: Array) -> Array:
        return np.ones((1, a.shape[1]), dtype=a.dtype) @ a

    def example_dot(self, a: Array, b: Array) -> Array:
        return np.einsum("npc,npc->nc", a, b)[:, None]


class NumpyElementwiseOps(ActivationOps):
    def erf(self, x: Array) -> Array:
        # some thirty array passes: block by block they run in the cache, 2.8 times faster
        flat = x.reshape(-1)
        if flat.size <= _BLOCK:
            return super().erf(x)
        y = np.empty_like(flat)
        for start in range(0, flat.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            y[block] = super().erf(flat[block])
        return y.reshape(x.shape)


def _widen(a: Array) -> tuple[Array, int]:
    """(..., C) as rows of `fold` times C elements, and `fold`."""
    channels = a.shape[-1]
    fold = _fold(a.size // max(1, channels), channels)
    return a.reshape(-1, fold * channels), fold


@cache
def _fold(rows: int, channels: int) -> int:
    """The largest divisor of `rows` for which a row has at most `_WIDTH` elements."""
    return max((n for n in range(1, max(1, _WIDTH // channels) + 1) if rows % n == 0), default=1)
