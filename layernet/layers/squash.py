"""Nonlinearities of the sigmoid's kind: bounded ones, logarithms of them, gates. No finite input overflows inside."""

from __future__ import annotations

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.errors import ShapeError
from layernet.layers.arithmetic import finite
from layernet.layers.shape import channels_of


class ScaledTanh(Layer):
    """a tanh(b x); a = 1.7159, b = 2/3 are LeCun's ("Efficient BackProp", 1998). cuda-convnet's neuron `tanh[a,b]`.

    Shape: any -> same.
    """

    def __init__(self, a: float = 1.7159, b: float = 2 / 3) -> None:
        self.a, self.b = finite("a", a), finite("b", b)

    def forward(self, x: Array, ctx: Context) -> Array:
        with ctx.ops.quiet():  # b x may overflow, where the tanh of infinity is right
            t = ctx.xp.tanh(self.b * x)
        ctx.save(t)
        return self.a * t

    def backward(self, dy: Array, ctx: Context) -> Array:
        (t,) = ctx.saved
        return (self.a * self.b) * (dy * (1 - t * t))


class Tanhshrink(Layer):
    """x - a tanh(x / a). torch's has a = 1; with another a it is cuda-convnet's neuron `drelu[a]`.

    Shape: any -> same.
    """

    def __init__(self, a: float = 1.0) -> None:
        if finite("a", a) == 0:
            raise ValueError(f"a must not be 0, got {a}")
        self.a = a

    def forward(self, x: Array, ctx: Context) -> Array:
        with ctx.ops.quiet():
            t = ctx.xp.tanh(x / self.a)
        ctx.save(t)
        return x - self.a * t

    def backward(self, dy: Array, ctx: Context) -> Array:
        (t,) = ctx.saved
        return dy * (t * t)


class Softsign(Layer):
    """x / (1 + |x|).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        share = 1 / (1 + abs(x))
        ctx.save(share)
        return x * share

    def backward(self, dy: Array, ctx: Context) -> Array:
        (share,) = ctx.saved
        return dy * share * share


class LogSigmoid(Layer):
    """log(1 / (1 + exp(-x))).

    Shape: any -> same.
    """

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.log_sigmoid(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.log_sigmoid_backward(dy, res)


class LogSoftmax(Layer):
    """x_i - log(sum_j exp(x_j)) over the last axis.

    Before `CrossEntropy` leave it out: that loss takes the logits.
    Shape: (N, ..., C) -> same.
    """

    def build(self, in_shape: Shape) -> Shape:
        channels_of(self, in_shape)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.log_softmax(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.log_softmax_backward(dy, res)


class GLU(Layer):
    """a sigmoid(b), a being the first half of the channels and b the second (Dauphin et al. 2016, arXiv:1612.08083).

    Shape: (N, ..., C) -> (N, ..., C / 2). Raises ShapeError for an odd C.
    """

    def build(self, in_shape: Shape) -> Shape:
        (channels,) = channels_of(self, in_shape)
        if channels % 2:
            raise ShapeError(
                f"GLU halves the last axis, which has {channels} channels", "give the layer before it an even number"
            )
        return (*in_shape[:-1], channels // 2)

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.glu(x)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.glu_backward(dy, res)
