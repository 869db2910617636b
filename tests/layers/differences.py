"""Central differences through a net, element by element."""

from __future__ import annotations

import numpy as np


def check_gradients(net, batch=2, seed=0, x=None):
    """Compare every gradient of sum(dy * y) in a float64 net, dy being random, with central differences."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *net.input_shape)) if x is None else np.array(x, dtype="float64")
    tape = net.forward(x, training=True, step=0, needs_input_grad=True)
    dy = rng.standard_normal(tape.output.shape)
    net.zero_grad()
    dx = net.backward(tape, dy)
    analytic = {"x": (x, dx)} | {path: (param.data, param.grad) for path, param in net.params().items()}
    for name, (values, gradient) in analytic.items():
        numeric = np.empty(values.shape)
        for index in np.ndindex(values.shape):
            before = values[index]
            sums = []
            for step in (1e-5, -1e-5):
                values[index] = before + step
                sums.append((net.forward(x, training=True, step=0, recording=False).output * dy).sum())
            values[index] = before
            numeric[index] = (sums[0] - sums[1]) / 2e-5
        np.testing.assert_allclose(gradient, numeric, rtol=1e-7, atol=1e-8, err_msg=name)
