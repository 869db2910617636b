"""Layers that only move values around."""

from __future__ import annotations

import math

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.errors import ShapeError


class Flatten(Layer):
    """Everything but the batch in one axis. Shape: (N, ...) -> (N, product)."""

    def build(self, in_shape: Shape) -> Shape:
        return (math.prod(in_shape),)

    def forward(self, x: Array, ctx: Context) -> Array:
        return x.reshape(len(x), *self.out_shape)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy.reshape(len(dy), *self.in_shape)


class Reshape(Layer):
    """The same values in another shape, given without N; one axis may be -1 and follows from the rest.

    Shape: (N, ...) -> (N, *shape). Raises ShapeError when the sizes do not agree.
    """

    def __init__(self, shape: list[int]) -> None:
        if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
            raise ValueError(f"shape must hold positive sizes and at most one -1, got {shape}")
        self.shape = list(shape)

    def build(self, in_shape: Shape) -> Shape:
        size = math.prod(in_shape)
        known = math.prod(n for n in self.shape if n != -1)
        if size % known or (-1 not in self.shape and size != known):
            raise ShapeError(f"{size} values of shape {in_shape} do not fit shape {tuple(self.shape)}")
        return tuple(size // known if n == -1 else n for n in self.shape)

    def forward(self, x: Array, ctx: Context) -> Array:
        return x.reshape(len(x), *self.out_shape)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy.reshape(len(dy), *self.in_shape)
