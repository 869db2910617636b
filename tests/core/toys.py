"""Tiny layers that show what the core does with them."""

from __future__ import annotations

from layernet.core import init
from layernet.core.layer import Layer
from layernet.core.param import Buffer, Param


class Scale(Layer):
    """y = weight x, and a count of what was called."""

    def __init__(self, start=2.0, decay_mult=1.0):
        self.start, self.decay_mult = start, decay_mult
        self.calls = []

    def build(self, in_shape):
        self.weight = Param(in_shape[-1:], init.constant(self.start), decay_mult=self.decay_mult)
        return in_shape

    def forward(self, x, ctx):
        self.calls.append("forward")
        ctx.save(x)
        return x * self.weight.data

    def backward(self, dy, ctx):
        self.calls.append("backward" if ctx.needs_input_grad else "backward without input")
        (x,) = ctx.saved
        ctx.add_grad(self.weight, (dy * x).reshape(-1, x.shape[-1]).sum(axis=0))
        return dy * self.weight.data if ctx.needs_input_grad else None


class Noise(Layer):
    """y = x + uniform noise, `draws` draws of it."""

    def __init__(self, draws=1):
        self.draws = draws

    def forward(self, x, ctx):
        ctx.save(None)
        for _ in range(self.draws):
            x = x + ctx.rng.uniform(x.shape)
        return x

    def backward(self, dy, ctx):
        return dy


class Track(Layer):
    """y = x; a running mean of x, and a count of updates."""

    def __init__(self, momentum=0.5):
        self.momentum = momentum

    def build(self, in_shape):
        self.mean = Buffer(in_shape, init.constant(0.0))
        return in_shape

    def forward(self, x, ctx):
        ctx.update_buffer(self.mean, x.mean(axis=0), self.momentum)
        ctx.save(None)
        return x * 1

    def backward(self, dy, ctx):
        return dy


class Again(Layer):
    """The body, recomputed in backward."""

    def __init__(self, body: Layer):
        self.body = body

    def build(self, in_shape):
        return self.body.connect(in_shape)

    def forward(self, x, ctx):
        y, tape = ctx.call(self.body, x, recording=False)
        ctx.save(x, tape)
        return y

    def backward(self, dy, ctx):
        x, tape = ctx.saved
        return ctx.backward(ctx.recall(tape, x), dy)


class Twice(Layer):
    """The body two times in a row: one layer, called twice."""

    def __init__(self, body: Layer):
        self.body = body

    def build(self, in_shape):
        return self.body.connect(in_shape)

    def forward(self, x, ctx):
        y, first = ctx.call(self.body, x)
        z, second = ctx.call(self.body, y)
        ctx.save(first, second)
        return z

    def backward(self, dy, ctx):
        first, second = ctx.saved
        middle = ctx.backward(second, dy)
        return None if middle is None else ctx.backward(first, middle)


class Side(Layer):
    """y = x, and 3 x under a name of its own."""

    def __init__(self, called="side"):
        self.called = called

    def forward(self, x, ctx):
        ctx.emit(self.called, 3 * x)
        ctx.save(None)
        return x * 1

    def backward(self, dy, ctx):
        side = ctx.output_grad(self.called)
        return dy if side is None else dy + 3 * side
