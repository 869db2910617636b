"""Layers that only move numbers, and what layers ask of their input's shape."""

from __future__ import annotations

import math

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.errors import ShapeError


class Flatten(Layer):
    """One axis of features from all: an image is read row by row, the channels of a pixel together.

    Shape: (N, ...) -> (N, product of ...).
    """

    def build(self, in_shape: Shape) -> Shape:
        return (math.prod(in_shape),)

    def forward(self, x: Array, ctx: Context) -> Array:
        return x.reshape(len(x), *self.out_shape)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy.reshape(len(dy), *self.in_shape)


class Reshape(Layer):
    """The same numbers in the same order, each example in another shape.

    `shape` leaves out N; one of its sizes may be -1, which stands for what is left.
    Shape: (N, ...) -> (N, *shape). Raises ShapeError when the numbers do not fit.
    """

    def __init__(self, shape: list[int]) -> None:
        if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
            raise ValueError(f"shape must be positive sizes, of which one may be -1, got {list(shape)}")
        self.shape = list(shape)

    def build(self, in_shape: Shape) -> Shape:
        size = math.prod(in_shape)
        known = math.prod(n for n in self.shape if n != -1)
        if size % known or (size != known and -1 not in self.shape):
            raise ShapeError(
                f"cannot make shape {self.shape} of an input of shape {list(in_shape)}",
                f"the input has {size} elements, the new shape needs "
                + (f"a multiple of {known}" if -1 in self.shape else f"{known}"),
            )
        return tuple(size // known if n == -1 else n for n in self.shape)

    def forward(self, x: Array, ctx: Context) -> Array:
        return x.reshape(len(x), *self.out_shape)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy.reshape(len(dy), *self.in_shape)


def channels_of(layer: Layer, in_shape: Shape) -> Shape:
    """(C,): the shape of one number a channel. Raises ShapeError when there is no axis of features."""
    if not in_shape:
        raise ShapeError(
            f"{type(layer).__name__} needs at least one axis of features", "give the input a shape like [1]"
        )
    return in_shape[-1:]
