"""Layers that make noise while training."""

from __future__ import annotations

from layernet.backend import Array
from layernet.core.context import Context
from layernet.core.layer import Layer


class Dropout(Layer):
    """y = x mask / (1 - p) in training, each element kept with probability 1 - p; y = x in evaluation.

    Inverted dropout (Srivastava et al. 2014). The mask is keyed: the same for the same seed and step.
    Shape: any -> same.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must lie in 0..1, got {p}")
        self.p = p

    def forward(self, x: Array, ctx: Context) -> Array:
        if not ctx.training or self.p == 0:
            ctx.save(None)
            return x
        keep = 1.0 - self.p
        mask = ctx.rng.keep_mask(x.shape, keep).astype(x.dtype) * (1.0 / keep if keep else 0.0)
        ctx.save(mask)
        return x * mask

    def backward(self, dy: Array, ctx: Context) -> Array:
        (mask,) = ctx.saved
        return dy if mask is None else dy * mask
