"""The training steps that bench_sizes.py times."""

from __future__ import annotations

import time

import numpy as np

import layernet as ln
from layernet.backend.device import get_device


def step_times(batch: int, image: int, channels: int, kernels: str, seconds: float) -> tuple[list[float], int]:
    """(seconds of each of several steps, floating-point operations of a step's products)."""
    layers = [ln.Conv2d(channels, 3, padding=1, bias=False), ln.BatchNorm(), ln.ReLU(), ln.GlobalAvgPool2d()]
    net = ln.Net([*layers, ln.Linear(10)], (image, image, channels)).bind(get_device("cpu", kernels))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, image, image, channels), dtype=np.float32)
    target, loss, optimizer = rng.integers(0, 10, batch), ln.CrossEntropy(), ln.SGD(lr=1e-4, momentum=0.9)
    optimizer.attach(net)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        net.zero_grad()
        # the gradient of x too: in a net, this convolution is not the first layer
        tape = net.forward(x, training=True, step=len(times), needs_input_grad=True)
        net.backward(tape, loss(tape.output, target)[1])
        optimizer.step(1.0, len(times))
        times.append(time.perf_counter() - start)
    products = [layer.flops(layer.in_shape) or 0 for layer in (net.layers[0], net.layers[-1])]
    return times[1:], 6 * batch * sum(products)  # forward, dx, dw: two for each multiply-add
