"""Elementwise nonlinearities, and softmax."""

from __future__ import annotations

from layernet.backend import Array
from layernet.core.context import Context
from layernet.core.layer import Layer


class ReLU(Layer):
    """max(x, 0); the gradient at 0 is 0.

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y = ctx.xp.maximum(x, 0)
        ctx.save(y)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (y,) = ctx.saved
        return dy * (y > 0)
