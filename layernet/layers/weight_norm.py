"""A weight written as length times direction."""

from __future__ import annotations

import copy

from layernet.backend import Array, Shape
from layernet.core import init
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Param
from layernet.layers.conv import Conv1d, Conv2d
from layernet.layers.linear import Linear


class WeightNorm(Layer):
    """The layer with weight[o] = weight_g[o] weight_v[o] / |weight_v[o]| for each output o, |.| the Euclidean norm.

    The gradient of weight_v is at right angles to it, so steps change its direction only, and the length is learned by
    itself (Salimans and Kingma 2016, arXiv:1602.07868). What torch.nn.utils.parametrizations.weight_norm makes of a
    layer with dim=0; the parameters are called as in torch.nn.utils.weight_norm.

    `layer` is a Linear, Conv1d or Conv2d. Shape: as the layer; weight_g (outputs, 1, ..., 1), weight_v like the layer's
    weight, bias that of the layer. At first weight_v is what the layer would draw, and weight_g its norms, so nothing
    is changed. Where weight_v[o] is 0, so are weight[o] and its gradients.
    """

    def __init__(self, layer: Layer) -> None:
        if not isinstance(layer, Linear | Conv1d | Conv2d):
            raise ValueError(f"layer must be a Linear, Conv1d or Conv2d, got {layer!r}")
        self.layer = layer

    def build(self, in_shape: Shape) -> Shape:
        out_shape = self.layer.connect(in_shape)
        self.weight_v = self.layer.weight  # ours now: it goes by the first path that it is found under
        self.weight_g = _Norms(self.weight_v)
        self.bias = self.layer.bias
        return out_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        weight, res = ctx.ops.weight_norm(self.weight_v.data, self.weight_g.data)
        # a pass writes nothing to the layers of the net: it runs a copy, with a weight of its own
        given = _Given(weight, frozen=self.weight_v.frozen and self.weight_g.frozen)
        layer = copy.copy(self.layer)
        layer.weight, layer.learns = given, self.learns
        y, tape = ctx.call(layer, x, needs_input_grad=ctx.needs_input_grad)
        ctx.save(tape, given, res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        tape, given, res = ctx.saved
        dx = ctx.backward(tape, dy)
        if given.has_grad:
            dv, dg = ctx.ops.weight_norm_backward(given.grad, res)
            ctx.add_grads((self.weight_v, dv), (self.weight_g, dg))
        return dx


class _Norms(Param):
    """The lengths of what stands along the first axis of another parameter; those of its initial values at first."""

    def __init__(self, of: Param) -> None:
        super().__init__((of.shape[0], *(1 for _ in of.shape[1:])), init.constant(1.0))
        self.of = of

    def draw(self, seed: int) -> Array:
        values = self.of.draw(seed)
        return ((values**2).sum(axis=tuple(range(1, values.ndim)), keepdims=True)) ** 0.5


class _Given(Param):
    """A weight that was computed in a pass, in the place of a parameter, and what it gets for a gradient there."""

    def __init__(self, values: Array, frozen: bool) -> None:
        super().__init__(values.shape, init.constant(0.0))
        self._data, self._frozen = values, frozen

    def grad_buffer(self) -> Array:
        if self._grad is None:
            self._grad = self.data.copy()
        return self._grad
