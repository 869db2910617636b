"""Layers that add noise in training."""

from __future__ import annotations

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.layers.arithmetic import finite
from layernet.layers.spatial import image_size


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
        mask = ctx.rng.keep_mask(self._mask_shape(x.shape), 1 - self.p)
        ctx.save(mask)
        return self._apply(mask, x, ctx)

    def backward(self, dy: Array, ctx: Context) -> Array:
        (mask,) = ctx.saved
        return dy if mask is None else self._apply(mask, dy, ctx)

    def _mask_shape(self, shape: Shape) -> Shape:
        """The shape of the mask for a batch of this shape; what it has 1 of lives or dies together."""
        return shape

    def _apply(self, mask: Array, x: Array, ctx: Context) -> Array:
        return ctx.ops.drop(x, mask, 1 / (1 - self.p) if self.p < 1 else 1.0)


class Dropout2d(Dropout):
    """In training each channel of each image becomes 0 with probability p, and x / (1 - p) otherwise; else y = x.

    For images, whose neighbouring pixels are too alike for `Dropout` to hide anything. (Tompson et al. 2014,
    arXiv:1411.4280)

    Shape: (N, H, W, C) -> same.
    """

    def build(self, in_shape: Shape) -> Shape:
        image_size("Dropout2d", in_shape)
        return in_shape

    def _mask_shape(self, shape: Shape) -> Shape:
        return shape[0], 1, 1, shape[3]


class DropPath(Dropout):
    """In training each example becomes 0 with probability p, and x / (1 - p) otherwise; in evaluation y = x.

    As the last layer of the branch of a `Residual`, it leaves the whole branch out for some examples: stochastic depth
    (Huang et al. 2016, arXiv:1603.09382), torchvision's StochasticDepth in mode "row".

    Shape: any -> same.
    """

    def __init__(self, p: float = 0.1) -> None:
        super().__init__(p)

    def _mask_shape(self, shape: Shape) -> Shape:
        return shape[0], *(1,) * (len(shape) - 1)


class GaussianNoise(Layer):
    """In training y = x + std * n, n standard normal and keyed like the masks of `Dropout`; in evaluation y = x.

    Shape: any -> same.
    """

    def __init__(self, std: float = 0.1) -> None:
        if finite("std", std) < 0:
            raise ValueError(f"std must be at least 0, got {std}")
        self.std = std

    def forward(self, x: Array, ctx: Context) -> Array:
        if not ctx.training or self.std == 0:
            return x
        return x + ctx.rng.normal(x.shape, std=self.std)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy
