"""Layers that add noise in training."""

from __future__ import annotations

from layernet.backend import Array
from layernet.core.context import Context
from layernet.core.layer import Layer


class Dropout(Layer):
    """In training each element becomes 0 with probability p, and x / (1 - p) otherwise; in evaluation y = x.

    The mask is keyed by seed, path, step, micro-batch and call, so it can be made again and is the same on every
    device. (Srivastava et al. 2014)

    Shape: any -> same.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability, got {p}")
        self.p = p

    def forward(self, x: Array, ctx: Context) -> Array:
        if not ctx.training or self.p == 0:
            ctx.save(None)
            return x
        mask = ctx.rng.keep_mask(x.shape, 1 - self.p)
        ctx.save(mask)
        return self._apply(mask, x)

    def backward(self, dy: Array, ctx: Context) -> Array:
        (mask,) = ctx.saved
        return dy if mask is None else self._apply(mask, dy)

    def _apply(self, mask: Array, x: Array) -> Array:
        y = x * mask
        if self.p < 1:
            y *= 1 / (1 - self.p)
        return y
