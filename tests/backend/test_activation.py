import math

import numpy as np
import pytest

from layernet.backend.device import host
from layernet.backend.ops import Ops

REFERENCE, NUMPY = Ops(np), host().ops
both = pytest.mark.parametrize("ops", [REFERENCE, NUMPY], ids=["reference", "numpy"])
KERNELS = {
    "relu": (),
    "leaky_relu": (0.1,),
    "prelu": (0.3,),
    "sigmoid": (),
    "tanh": (),
    "silu": (),
    "gelu": ("none",),
    "gelu_tanh": ("tanh",),
    "softmax": (),
}


def call(ops, name, x, *, backward_of=None):
    arguments = KERNELS[name]
    if name == "prelu":
        arguments = (np.full(x.shape[-1], *arguments, dtype=x.dtype),)
    name = name.removesuffix("_tanh") if name.startswith("gelu") else name
    y, res = getattr(ops, name)(x, *arguments)
    if backward_of is None:
        return y
    if name == "prelu":  # the slope's gradient, a sum over the extremes, has no finite value
        return ops.prelu_backward(backward_of, res, need_dw=False)[0]
    return getattr(ops, name + "_backward")(backward_of, res)


@both
def test_erf_in_double_precision(ops):
    x = np.concatenate([np.linspace(-6.5, 6.5, 100_001), np.logspace(-300, 0, 1000), [0.0, 1e300, -1e300]])
    exact = np.array([math.erf(v) for v in x])
    found = ops.erf(x)
    assert np.max(np.abs(found - exact) / np.where(exact == 0, 1, np.abs(exact))) < 1e-15
    assert np.all(np.abs(found) <= 1)
    np.testing.assert_array_equal(found, -ops.erf(-x))


@both
def test_erf_in_single_precision(ops):
    x = np.linspace(-5, 5, 40_001, dtype="float32").reshape(-1, 1)
    exact = np.array([[math.erf(v)] for (v,) in x.tolist()])
    found = ops.erf(x)
    assert found.dtype == np.float32
    assert found.shape == x.shape
    assert np.max(np.abs(found - exact) / np.where(exact == 0, 1, np.abs(exact))) < 4e-7


EXTREME = [3e38, 1e30, 1e10, 1000.0, 100.0, 88.8, 20.0, 1.0, 1e-20, 1e-40, 0.0]


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", KERNELS)
def test_no_finite_input_overflows(name, dtype, ops):
    # warnings are errors here, so an overflow on the way to a right result fails too
    largest = np.finfo(dtype).max
    half = np.array([largest, *EXTREME], dtype=dtype)
    x = np.concatenate([half, -half]).reshape(-1, 1)
    if name == "softmax":
        x = np.stack([np.roll(x[:, 0], i) for i in range(3)], axis=1)
    y = call(ops, name, x)
    dx = call(ops, name, x, backward_of=np.ones_like(x))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert y.dtype == dx.dtype == dtype


@both
def test_limits(ops):
    x = np.array([3e38, 100.0, -100.0, -3e38], dtype="float32")
    zero, one = np.zeros(4, dtype="float32"), np.ones(4, dtype="float32")
    np.testing.assert_array_equal(call(ops, "sigmoid", x), [1, 1, np.exp(np.float32(-100)), 0])
    np.testing.assert_array_equal(call(ops, "tanh", x), [1, 1, -1, -1])
    for name in ("gelu", "gelu_tanh", "silu"):
        np.testing.assert_allclose(call(ops, name, x), np.maximum(x, 0), atol=1e-41)
        np.testing.assert_allclose(call(ops, name, x, backward_of=one), [1, 1, 0, 0], atol=1e-40)
    for name in ("sigmoid", "tanh"):
        np.testing.assert_allclose(call(ops, name, x, backward_of=one), zero, atol=1e-40)
    rows = np.array([[3e38, -3e38, 3e38], [3e38, 0, -3e38], [-3e38, -3e38, -3e38]], dtype="float32")
    third = np.float32(1 / 3)
    np.testing.assert_allclose(call(ops, "softmax", rows), [[0.5, 0, 0.5], [1, 0, 0], [third] * 3], rtol=1e-6)


def test_small_probabilities_keep_their_digits():
    x = np.array([-80.0, -30.0, -5.0])
    np.testing.assert_allclose(NUMPY.sigmoid(x)[0], [math.exp(v) / (1 + math.exp(v)) for v in x], rtol=1e-15)


def test_softmax_does_not_change_with_a_shift():
    x = np.random.default_rng(0).normal(size=(5, 7))
    y = NUMPY.softmax(x)[0]
    np.testing.assert_allclose(y, NUMPY.softmax(x + 300)[0], rtol=1e-12)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-14)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (40_000, 3)])
@pytest.mark.parametrize("name", KERNELS)
def test_numpy_kernels_agree_with_the_reference(name, shape):
    rng = np.random.default_rng(1)
    x, dy = rng.normal(size=shape) * 3, rng.normal(size=shape)
    np.testing.assert_allclose(call(NUMPY, name, x), call(REFERENCE, name, x), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(
        call(NUMPY, name, x, backward_of=dy), call(REFERENCE, name, x, backward_of=dy), rtol=1e-12, atol=1e-13
    )


def test_erf_reads_views():
    x = np.random.default_rng(0).normal(size=(300, 400))
    np.testing.assert_array_equal(NUMPY.erf(x.T[::2]), np.ascontiguousarray(NUMPY.erf(x).T[::2]))
