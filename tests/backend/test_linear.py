"""Products of layers that write their gradient where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.backend import compiled
from layernet.backend.device import get_device
from layernet.core.net import Net
from layernet.core.sequential import Ref
from layernet.layers.activation import ReLU
from layernet.layers.linear import Linear

LEVELS = ["numpy", "numba"] if compiled.problem() is None else ["numpy"]


@pytest.mark.parametrize("kernels", LEVELS)
@pytest.mark.parametrize("name", ["linear", "linear_relu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dw_is_written_into_the_array_that_is_given(kernels, name, dtype):
    ops = get_device("cpu", kernels=kernels).ops
    rng = np.random.default_rng(0)
    x, w, b, dy = (rng.standard_normal(shape).astype(dtype) for shape in ((6, 5), (3, 5), (3,), (6, 3)))
    y, res = getattr(ops, name)(x, w, b)
    into = np.full((3, 5), np.nan, dtype=dtype)
    dw = getattr(ops, f"{name}_backward")(dy, res, dw=into)[1]
    assert dw is into
    dz = dy * (y > 0) if name == "linear_relu" else dy
    np.testing.assert_allclose(dw, dz.T.astype("float64") @ x, rtol=1e-5)
    assert getattr(ops, f"{name}_backward")(dy, res, need_dw=False, dw=into)[1] is None


@pytest.mark.parametrize("plan", [True, False])
def test_a_weight_that_is_used_twice_sums_its_gradients(plan):
    """The first use writes into the gradient, the second adds to it; and so does a second micro-batch."""
    net = Net([Linear(4).named("a"), ReLU(), Ref("a")], (4,), plan=plan).bind("cpu", "float64")
    x = np.random.default_rng(1).standard_normal((5, 4))
    (weight, bias) = net.params().values()
    z = x @ weight.data.T + bias.data
    dz = np.ones((5, 4)) @ weight.data * (z > 0)
    expected = np.ones((5, 4)).T @ np.maximum(z, 0) + dz.T @ x
    for count in (1, 2):
        net.backward(net.forward(x, training=True), np.ones((5, 4)))
        np.testing.assert_allclose(weight.grad, count * expected, rtol=1e-12)
