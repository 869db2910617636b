"""A custom layer: all that custom_layer.yaml needs."""

from layernet import Layer, Param, init, sum_to


class PReLU(Layer):
    """max(x, 0) + a * min(x, 0) with one learned slope a per channel (He et al. 2015, arXiv:1502.01852).

    Shape: (N, ..., C) -> (N, ..., C).
    """

    def __init__(self, init: float = 0.25):
        self.init = init

    def build(self, in_shape):
        self.weight = Param(in_shape[-1:], init.constant(self.init), decay_mult=0)
        return in_shape

    def forward(self, x, ctx):
        ctx.save(x)
        return ctx.xp.where(x > 0, x, self.weight.data * x)

    def backward(self, dy, ctx):
        (x,) = ctx.saved
        ctx.add_grad(self.weight, sum_to(dy * ctx.xp.minimum(x, 0), self.weight.shape))
        return ctx.xp.where(x > 0, dy, self.weight.data * dy)
