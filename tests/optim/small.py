"""A small net, gradients for it, runs of an optimizer on them, and what those of the papers do by loops."""

from __future__ import annotations

import math

import numpy as np
from numpy.testing import assert_allclose

from layernet.core import init
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.layers.activation import ReLU
from layernet.layers.linear import Linear
from layernet.optim.optimizer import Optimizer
from layernet.optim.optimizers import SGD, AdamW


class Gains(Layer):
    """y = gain x + shift; the gain learns at half the rate, the shift does not decay."""

    def build(self, in_shape):
        self.gain = Param(in_shape, init.constant(1.0), lr_mult=0.5)
        self.shift = Param(in_shape, init.constant(0.1), decay_mult=0)
        return in_shape


def make_net(dtype: str = "float64", seed: int = 0) -> Net:
    return Net([Linear(5), Gains(), ReLU(), Linear(7).named("head")], (3,)).bind("cpu", dtype, seed)


def gradients(net: Net, steps: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    g = np.random.default_rng(seed)
    return [{path: g.normal(size=p.shape) for path, p in net.params().items()} for _ in range(steps)]


def put(net: Net, grads: dict[str, np.ndarray]) -> None:
    """Give parameters gradients as a backward pass would."""
    net.zero_grad()
    for path, g in grads.items():
        if not net.params()[path].frozen:
            net.params()[path].grad_buffer()[...] = g
            net.params()[path].has_grad = True


def run(optimizer: Optimizer, net: Net, grads: list[dict[str, np.ndarray]], factors=None, start: int = 0) -> None:
    for step, g in enumerate(grads, start):
        put(net, g)
        optimizer.step(factors[step] if factors else 1.0, step)


def values(net: Net) -> dict[str, np.ndarray]:
    return {path: p.data.copy() for path, p in net.params().items()}


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray], atol: float = 0.0) -> None:
    assert first.keys() == second.keys()
    for path in first:
        assert_allclose(first[path], second[path], rtol=0, atol=atol, err_msg=path)


def naive(cls, options, w, grads, factors, lr_mult, decay_mult):
    """One parameter, one element at a time, from the papers' formulas."""
    w = w.copy()
    decay = options.get("weight_decay", 0.01 if cls is AdamW else 0.0) * decay_mult
    for index in np.ndindex(*w.shape):
        x, a, b = float(w[index]), 0.0, 0.0
        for t, g_all in enumerate(grads, 1):
            lr, g = options["lr"] * factors[t - 1] * lr_mult, float(g_all[index])
            if cls is AdamW:
                x -= lr * decay * x
            else:
                g += decay * x
            if cls is SGD:
                m = options.get("momentum", 0.0)
                a = g if t == 1 else m * a + (1 - options.get("dampening", 0.0)) * g
                x -= lr * ((g + m * a if options.get("nesterov") else a) if m else g)
            else:
                b1, b2 = options.get("betas", (0.9, 0.999))
                a, b = b1 * a + (1 - b1) * g, b2 * b + (1 - b2) * g * g
                x -= lr * (a / (1 - b1**t)) / (math.sqrt(b / (1 - b2**t)) + options.get("eps", 1e-8))
        w[index] = x
    return w
