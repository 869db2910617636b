import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend.device import host
from layernet.backend.numpy_channels import _fold
from layernet.backend.ops import Ops

REFERENCE, NUMPY = Ops(np), host().ops
SHAPES = [(1, 1), (2, 3), (7, 5), (6, 4, 4, 16), (3, 5, 7, 2), (2, 300), (1, 9, 1, 257), (13, 64)]
both = pytest.mark.parametrize("ops", [REFERENCE, NUMPY], ids=["reference", "numpy"])


def random(shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@both
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_and_scalings(ops, shape):
    a, b, scale, shift = random(shape), random(shape, 1), random(shape[-1:], 2), random(shape[-1:], 3)
    total, dot = np.zeros(shape[-1]), np.zeros(shape[-1])
    for place in np.ndindex(shape[:-1]):
        total += a[place]
        dot += a[place] * b[place]
    np.testing.assert_allclose(ops.channel_sum(a), total, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ops.channel_dot(a, b), dot, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ops.channel_affine(a, scale, shift), np.stack(list(a)) * scale + shift, rtol=1e-14)
    np.testing.assert_array_equal(ops.channel_affine(a, scale), a * scale)
    np.testing.assert_array_equal(ops.channel_affine(a, shift=shift), a + shift)
    rows = np.array([sum(row) for row in a.reshape(-1, shape[-1])]).reshape(*shape[:-1], 1)
    np.testing.assert_allclose(ops.row_sum(a), rows, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ops.row_dot(a, b), ops.row_sum(a * b), rtol=1e-12, atol=1e-12)


@both
def test_scaling_gives_a_new_array(ops):
    a = random((4, 3))
    same = ops.channel_affine(a)
    np.testing.assert_array_equal(same, a)
    assert not np.shares_memory(same, a)


@both
def test_views_and_other_orders_are_read_right(ops):
    wide = random((6, 5, 8))
    a, b = wide[::2, :, 1:4], wide.transpose(1, 0, 2)[:, ::2, 3:6].transpose(1, 0, 2)
    assert not a.flags.c_contiguous
    np.testing.assert_allclose(ops.channel_dot(a, b), (a * b).sum((0, 1)))
    np.testing.assert_allclose(ops.row_dot(a, b), (a * b).sum(-1, keepdims=True))
    np.testing.assert_array_equal(ops.channel_affine(a, a[0, 0]), a * a[0, 0])


@settings(deadline=None)
@given(rows=st.integers(0, 10_000), channels=st.integers(1, 600))
def test_a_fold_divides_the_rows_and_stays_in_the_width(rows, channels):
    fold = _fold(rows, channels)
    assert rows % fold == 0
    assert fold == 1 or fold * channels <= 256


@both
def test_float32_statistics_far_from_zero(ops):
    # the mean is a thousand standard deviations away: E[x^2] - E[x]^2 would have no digit left
    x = (1000 + random((64, 16, 16, 4))).astype("float32")
    exact = x.astype("float64")
    y, mean, var, _ = ops.batch_norm(x, None, None, 0.0)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=3e-6 if ops is REFERENCE else 3e-7)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=2e-5)  # found: 2.8e-6
    assert abs(y.mean()) < 1e-3
    assert y.dtype == mean.dtype == var.dtype == np.float32


@pytest.mark.parametrize("shape", [(4, 3), (5, 3, 2, 16), (9, 4, 300)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_given", "layer_norm"])
def test_numpy_kernels_agree_with_the_reference(name, affine, shape):
    x, dy = random(shape), random(shape, 1)
    weight, bias = (random(shape[-1:], 2), random(shape[-1:], 3)) if affine else (None, None)
    given = (random(shape[-1:], 4), random(shape[-1:], 5) ** 2) if name == "batch_norm_given" else ()
    results = []
    for ops in (REFERENCE, NUMPY):
        *out, res = getattr(ops, name)(x, *given, weight, bias, 1e-5)
        results.append([*out, *getattr(ops, name + "_backward")(dy, res)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_given", "layer_norm"])
def test_only_wanted_gradients_are_computed(name):
    x, channel = random((6, 3)), random((3,)) ** 2
    given = (channel, channel) if name == "batch_norm_given" else ()
    *_, res = getattr(NUMPY, name)(x, *given, channel, channel, 1e-5)
    backward = getattr(NUMPY, name + "_backward")
    everything = backward(x, res)
    for wanted in range(3):
        flags = dict(zip(("need_dx", "need_dw", "need_db"), (i == wanted for i in range(3)), strict=True))
        for i, (part, whole) in enumerate(zip(backward(x, res, **flags), everything, strict=True)):
            if i == wanted:
                np.testing.assert_array_equal(part, whole)
            else:
                assert part is None
