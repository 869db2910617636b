"""A chain of layers: what a net is made of, and a layer itself."""

from __future__ import annotations

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer


class Sequential(Layer):
    """Layers one after the other: y = f_n(... f_2(f_1(x))).

    Shape: whatever the first layer takes -> what the last one gives. With no layers, the identity.
    """

    adds_level = False

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = list(layers)

    def build(self, in_shape: Shape) -> Shape:
        shape = in_shape
        for layer in self.layers:
            shape = layer.connect(shape)
        return shape

    def forward(self, x: Array, ctx: Context) -> Array:
        tapes = []
        for layer in ctx.tape.steps.get(self, self.layers):
            x, tape = ctx.call(layer, x)
            tapes.append(tape)
        ctx.save(tapes)
        return x

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (tapes,) = ctx.saved
        gradient: Array | None = dy
        while tapes:
            if gradient is None:  # nothing trained further down
                return None
            gradient = ctx.backward(tapes.pop(), gradient)  # popped, so that what it kept is free at once
        return gradient


class Ref(Layer):
    """A second layer built from the same arguments as the layer called `to`, sharing its parameters and buffers.

    A net replaces it when it is built; `to` is a path, as in `net.params()` without the parameter.
    """

    def __init__(self, to: str) -> None:
        self.to = to
