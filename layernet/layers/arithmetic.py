"""Plain arithmetic, element by element, with constants in place of parameters.

Where a formula has no finite value (the root or logarithm of a number below 0, an overflow), the result is NaN or
infinite without a warning from numpy, as on a GPU.
"""

from __future__ import annotations

import math

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer


class Affine(Layer):
    """scale * x + shift, two constants. cuda-convnet's neuron `linear[a,b]`.

    Shape: any -> same.
    """

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        self.scale, self.shift = finite("scale", scale), finite("shift", shift)

    def forward(self, x: Array, ctx: Context) -> Array:
        with ctx.ops.quiet():
            return self.scale * x + self.shift

    def backward(self, dy: Array, ctx: Context) -> Array:
        return self.scale * dy

    def flops(self, in_shape: Shape) -> int:
        return math.prod(in_shape)


class Abs(Layer):
    """|x|; the gradient at 0 is 0, as in torch (cuda-convnet's neuron `abs` has -1 there).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return abs(x)

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        return dy * ctx.xp.sign(x)


class Square(Layer):
    """x^2. cuda-convnet's neuron `square`.

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        with ctx.ops.quiet():
            return x * x

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        with ctx.ops.quiet():
            return 2 * (dy * x)


class Sqrt(Layer):
    """sqrt(x + shift). A `shift` above 0 bounds the gradient, which is infinite at 0. cuda-convnet's neuron `sqrt`.

    Shape: any -> same.
    """

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = finite("shift", shift)

    def forward(self, x: Array, ctx: Context) -> Array:
        with ctx.ops.quiet():
            y = ctx.xp.sqrt(x + self.shift)
        ctx.save(y)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (y,) = ctx.saved
        with ctx.ops.quiet():
            return 0.5 * dy / y


class Log(Layer):
    """log(x + shift), the natural logarithm. cuda-convnet's neuron `log[a]`.

    Shape: any -> same.
    """

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = finite("shift", shift)

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        with ctx.ops.quiet():
            return ctx.xp.log(x + self.shift)

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        with ctx.ops.quiet():
            return dy / (x + self.shift)


class Exp(Layer):
    """exp(x).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        with ctx.ops.quiet():
            y = ctx.xp.exp(x)
        ctx.save(y)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (y,) = ctx.saved
        with ctx.ops.quiet():
            return dy * y


class Power(Layer):
    """(scale * x + shift) ** power, three constants. Caffe's Power.

    Numbers below 0 have a power only where it is whole; at 0, a `power` below 1 has an infinite gradient.
    Shape: any -> same.
    """

    def __init__(self, power: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> None:
        self.power, self.scale, self.shift = finite("power", power), finite("scale", scale), finite("shift", shift)

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        with ctx.ops.quiet():
            return (self.scale * x + self.shift) ** self.power

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        if self.power == 0:  # constant, also at 0, where the formula below says 0 * infinity
            return 0 * dy
        with ctx.ops.quiet():
            slope = (self.scale * x + self.shift) ** (self.power - 1)
            return (self.power * self.scale) * (dy * slope)


def finite(name: str, value: float) -> float:
    """The argument. Raises ValueError where it is infinite or NaN."""
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return value
