"""Layers and losses with one mistake each: what a gradient check must not let through."""

from __future__ import annotations

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.arrays import sum_to
from layernet.core import init
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Buffer, Param
from layernet.layers.linear import Linear
from layernet.losses import Loss


class Dense(Layer):
    """A right layer, x W + b, for the mistakes below to be made in."""

    def __init__(self, features: int = 4) -> None:
        self.features = features

    def build(self, in_shape: Shape) -> Shape:
        self.weight = Param((in_shape[-1], self.features), init.normal(0.5))
        self.bias = Param((self.features,), init.constant(0.0))
        return (*in_shape[:-1], self.features)

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return x @ self.weight.data + self.bias.data

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (x,) = ctx.saved
        ctx.add_grad(self.weight, self.dw(x, dy))
        self.add_db(dy, ctx)
        return self.dx(x, dy)

    def dw(self, x: Array, dy: Array) -> Array:
        return x.T @ dy

    def add_db(self, dy: Array, ctx: Context) -> None:
        ctx.add_grad(self.bias, dy.sum(axis=0))

    def dx(self, x: Array, dy: Array) -> Array:
        return dy @ self.weight.data.T


class WrongSign(Dense):
    def dw(self, x: Array, dy: Array) -> Array:
        return -super().dw(x, dy)


class MeanForSum(Dense):
    def dw(self, x: Array, dy: Array) -> Array:
        return super().dw(x, dy) / len(x)


class FactorTwo(Dense):
    def dx(self, x: Array, dy: Array) -> Array:
        return 2 * super().dx(x, dy)


class OneElement(Dense):
    """One of 10 000 elements is wrong by half a per mille."""

    def dw(self, x: Array, dy: Array) -> Array:
        g = super().dw(x, dy)
        g[37, 58] *= 1.0005
        return g


class Transposed(Dense):
    def dw(self, x: Array, dy: Array) -> Array:
        return super().dw(x, dy).T


class ForgottenBias(Dense):
    def add_db(self, dy: Array, ctx: Context) -> None:
        pass


class ZeroBias(Dense):
    def add_db(self, dy: Array, ctx: Context) -> None:
        ctx.add_grad(self.bias, 0 * dy.sum(axis=0))


class ZeroInput(Dense):
    def dx(self, x: Array, dy: Array) -> Array:
        return 0 * super().dx(x, dy)


class Overwritten(Dense):
    def add_db(self, dy: Array, ctx: Context) -> None:
        buffer, _ = ctx.grad(self.bias)
        buffer[...] = dy.sum(axis=0)


class AlwaysAdded(Dense):
    def add_db(self, dy: Array, ctx: Context) -> None:
        buffer, _ = ctx.grad(self.bias)
        buffer += dy.sum(axis=0)


class Single(Dense):
    """Computed in float32, and given back in float64."""

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        y = x.astype("float32") @ self.weight.data.astype("float32") + self.bias.data.astype("float32")
        return y.astype(x.dtype)


class SingleGradient(Dense):
    def dw(self, x: Array, dy: Array) -> Array:
        return super().dw(x, dy).astype("float32").astype(x.dtype)


class SingleInputGradient(Dense):
    def dx(self, x: Array, dy: Array) -> Array:
        return super().dx(x, dy).astype("float32")


class NotANumber(Dense):
    def dw(self, x: Array, dy: Array) -> Array:
        g = super().dw(x, dy)
        g[0, 1] = np.nan
        return g


class WrongShape(Dense):
    def dx(self, x: Array, dy: Array) -> Array:
        return super().dx(x, dy)[:, :-1]


class WrongBiasShape(Dense):
    def add_db(self, dy: Array, ctx: Context) -> None:
        ctx.add_grad(self.bias, dy.sum())


class InfiniteOutput(Layer):
    def forward(self, x: Array, ctx: Context) -> Array:
        return x / (x * 0)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy


class UnkeyedNoise(Layer):
    """Noise from a generator of its own."""

    def build(self, in_shape: Shape) -> Shape:
        self.generator = np.random.default_rng(0)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        mask = self.generator.random(x.shape) < 0.5
        ctx.save(mask)
        return x * mask

    def backward(self, dy: Array, ctx: Context) -> Array:
        (mask,) = ctx.saved
        return dy * mask


class KinksEverywhere(Layer):
    """A zigzag so fine that the difference quotients see kinks wherever they look."""

    def forward(self, x: Array, ctx: Context) -> Array:
        return x + abs((x * 3e5) % 1.0 - 0.5) / 3e5

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy


class Staircase(Layer):
    """Rounds, and passes the gradient straight through: flat almost everywhere, with jumps in between."""

    def __init__(self, step: float = 0.1) -> None:
        self.step = step

    def forward(self, x: Array, ctx: Context) -> Array:
        return ctx.xp.round(x / self.step) * self.step

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy


class NoSubgradient(Layer):
    """|x| with a slope of 2 at 0."""

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return abs(x)

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        return dy * ctx.xp.where(x == 0, 2.0, ctx.xp.sign(x))


class BatchNorm(Layer):
    """A right one, for its terms to be left out."""

    eps = 1e-3

    def build(self, in_shape: Shape) -> Shape:
        self.weight = Param(in_shape[-1:], init.constant(1.0))
        self.running_var = Buffer(in_shape[-1:], init.constant(1.0))
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        axes = tuple(range(x.ndim - 1))
        var = x.var(axis=axes) if ctx.training else self.running_var.data
        mean = x.mean(axis=axes) if ctx.training else 0.0
        ctx.update_buffer(self.running_var, var, 0.1)
        inverse = 1 / ctx.xp.sqrt(var + self.eps)
        normal = (x - mean) * inverse
        ctx.save(normal, inverse, axes)
        return normal * self.weight.data

    def backward(self, dy: Array, ctx: Context) -> Array:
        normal, inverse, axes = ctx.saved
        ctx.add_grad(self.weight, sum_to(dy * normal, self.weight.shape))
        d = dy * self.gain(ctx)
        if ctx.training:
            d = self.centred(d, normal, axes)
        return d * inverse

    def gain(self, ctx: Context) -> Array:
        return self.weight.data

    def centred(self, d: Array, normal: Array, axes: tuple[int, ...]) -> Array:
        return d - d.mean(axis=axes) - normal * (d * normal).mean(axis=axes)


class NoMeanTerm(BatchNorm):
    def centred(self, d: Array, normal: Array, axes: tuple[int, ...]) -> Array:
        return d - normal * (d * normal).mean(axis=axes)


class NoVarianceTerm(BatchNorm):
    def centred(self, d: Array, normal: Array, axes: tuple[int, ...]) -> Array:
        return d - d.mean(axis=axes)


class ForgottenGain(BatchNorm):
    """Right as long as the gain is 1, where it starts."""

    def gain(self, ctx: Context) -> Array:
        return ctx.xp.ones_like(self.weight.data)


class ForgottenStatistics(BatchNorm):
    """Right in evaluation as long as the running variance is 1, where it starts."""

    def backward(self, dy: Array, ctx: Context) -> Array:
        dx = super().backward(dy, ctx)
        return dx if ctx.training else dx * ctx.xp.sqrt((self.running_var.data + self.eps) / (1 + self.eps))


class SoftplusAtOutput(Layer):
    """cuda-convnet's first softrelu: the derivative taken at the output instead of the input."""

    def forward(self, x: Array, ctx: Context) -> Array:
        y = ctx.xp.log1p(ctx.xp.exp(x))
        ctx.save(y)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (y,) = ctx.saved
        return dy / (1 + ctx.xp.exp(-y))


class MeanPool1d(Layer):
    """Means over 3 neighbours with zeros around; the border's backward divides by the 2 that are there."""

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(None)
        y = x / 3
        y[:, 1:] += x[:, :-1] / 3
        y[:, :-1] += x[:, 1:] / 3
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        dx = dy / 3
        dx[:, 1:] += dy[:, :-1] / 3
        dx[:, :-1] += dy[:, 1:] / 3
        dx[:, 0] *= 1.5
        dx[:, -1] *= 1.5
        return dx


class WrongChild(Layer):
    """A composite that forgets the way through its shortcut."""

    def build(self, in_shape: Shape) -> Shape:
        self.body = Linear(in_shape[-1])
        return self.body.connect(in_shape)

    def forward(self, x: Array, ctx: Context) -> Array:
        y, tape = ctx.call(self.body, x)
        ctx.save(tape)
        return x + y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (tape,) = ctx.saved
        return ctx.backward(tape, dy)


class HalfSquareRight(Loss):
    """(outputs - target)^2 / 2, a right one."""

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Array, int]:
        ctx.save(outputs - target)
        return ((outputs - target) ** 2).sum() / 2, outputs.size

    def backward(self, ctx: Context) -> Array:
        (difference,) = ctx.saved
        return difference


class HalfSquare(Loss):
    """(outputs - target)^2 with the gradient of half of it."""

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Array, int]:
        ctx.save(outputs - target)
        return ((outputs - target) ** 2).sum(), outputs.size

    def backward(self, ctx: Context) -> Array:
        (difference,) = ctx.saved
        return difference


class NoBatchFactor(HalfSquare):
    """The gradient of the mean where that of the sum is asked for."""

    def backward(self, ctx: Context) -> Array:
        (difference,) = ctx.saved
        return 2 * difference / difference.size


class WeakBias(Layer):
    """Forgets a gradient that is below the rounding floor of the usual step."""

    def build(self, in_shape: Shape) -> Shape:
        self.bias = Param(in_shape[-1:], init.normal())
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        return x + 1e-11 * self.bias.data

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy


class Dead(Layer):
    """Never leaves its flat part, where a wrong backward cannot be told from a right one."""

    def forward(self, x: Array, ctx: Context) -> Array:
        return ctx.xp.maximum(x - 100.0, 0)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return 0 * dy


class Wiggles(Layer):
    """sin(1000 x) / 1000, which is right, and curved so much that the two steps disagree."""

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return ctx.xp.sin(1000 * x) / 1000

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        return dy * ctx.xp.cos(1000 * x)


class ByDivision(Layer):
    """The product of the features. Its backward divides by x: right, but for a zero."""

    def build(self, in_shape: Shape) -> Shape:
        return (*in_shape[:-1], 1)

    def forward(self, x: Array, ctx: Context) -> Array:
        y = x.prod(-1, keepdims=True)
        ctx.save(x, y)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        x, y = ctx.saved
        return dy * y / x
