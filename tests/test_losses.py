"""Losses against naive loops in float64 and what must hold for any input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from layernet.backend.device import host
from layernet.core.context import Context, Tape
from layernet.errors import DataError, ShapeError
from layernet.losses import (
    L1,
    MSE,
    BCEWithLogits,
    CrossEntropy,
    L2Penalty,
    Loss,
    Objective,
    inverse,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def context(dtype: str = "float64") -> Context:
    return Context(Tape(host(), dtype, training=True))


def numeric_gradient(f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        plus, minus = x.copy(), x.copy()
        plus[index] += h
        minus[index] -= h
        gradient[index] = (f(plus) - f(minus)) / (2 * h)
    return gradient


def naive_cross_entropy(z, target, smoothing, weight, ignore):
    """Mean and sum of weights, a row and a class at a time, from the definition."""
    classes = z.shape[-1]
    w = [1.0] * classes if weight is None else weight
    total = count = 0.0
    for index in np.ndindex(*z.shape[:-1]):
        row = [math.exp(v) for v in z[index]]
        log_p = [math.log(v / sum(row)) for v in row]
        if target.dtype.kind == "f":
            q, count = list(target[index]), count + 1.0
        elif target[index] == ignore:
            continue
        else:
            q, count = [float(c == target[index]) for c in range(classes)], count + w[target[index]]
        if target.dtype.kind == "f":
            mixed = [(1 - smoothing) * v + smoothing / classes for v in q]
            total -= sum(w[c] * mixed[c] * log_p[c] for c in range(classes))
        else:  # PyTorch: the label's weight for its own part, each class's weight for the part spread over all
            total -= (1 - smoothing) * w[target[index]] * log_p[target[index]]
            total -= smoothing / classes * sum(w[c] * log_p[c] for c in range(classes))
    return total / count, count


CASES = [
    (shape, soft, smoothing, weighted, ignored)
    for shape in [(6, 4), (3, 2, 2, 5)]
    for soft in (False, True)
    for smoothing in (0.0, 0.2)
    for weighted in (False, True)
    for ignored in (False, True)
    if not (soft and ignored)
]


def cross_entropy_case(shape, soft, weighted, ignored, seed=0):
    g = rng(seed)
    z = g.normal(size=shape) * 3
    classes = shape[-1]
    target: Any
    if soft:
        target = g.dirichlet(np.ones(classes), size=shape[:-1])
    else:
        target = g.integers(0, classes, size=shape[:-1])
        if ignored:
            target.reshape(-1)[::3] = -100
    return z, target, list(g.uniform(0.2, 2.0, classes)) if weighted else None


@pytest.mark.parametrize(("shape", "soft", "smoothing", "weighted", "ignored"), CASES)
def test_cross_entropy_is_its_definition(shape, soft, smoothing, weighted, ignored):
    z, target, weight = cross_entropy_case(shape, soft, weighted, ignored)
    loss = CrossEntropy(smoothing, weight)
    value, dy = loss(z, target)
    expected, count = naive_cross_entropy(z, target, smoothing, weight, -100)
    assert_allclose(value, expected, rtol=1e-13)
    assert_allclose(float(loss.forward(z, target, context())[1]), count, rtol=1e-13)
    assert_allclose(dy, numeric_gradient(lambda v: loss(v, target)[0], z), atol=1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(2, 6), st.floats(-1e4, 1e4), st.floats(0, 1), st.integers(0, 1000))
def test_cross_entropy_ignores_a_shift_and_its_gradient_sums_to_zero(rows, classes, shift, smoothing, seed):
    g = rng(seed)
    z, labels = g.normal(size=(rows, classes)), g.integers(0, classes, rows)
    loss = CrossEntropy(smoothing)
    value, dy = loss(z, labels)
    moved, _ = loss(z + shift, labels)
    assert_allclose(moved, value, rtol=1e-9, atol=1e-9)
    assert_allclose(dy.sum(axis=1), 0, atol=1e-14)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(2, 5), st.floats(0, 1), st.booleans(), st.integers(0, 1000))
def test_one_hot_soft_labels_are_the_labels(rows, classes, smoothing, weighted, seed):
    g = rng(seed)
    z, labels = g.normal(size=(rows, classes)), g.integers(0, classes, rows)
    # sums agree with class weights too as long as nothing is smoothed; the normalisers differ, as in PyTorch
    weight = list(g.uniform(0.1, 2, classes)) if weighted and smoothing == 0 else None
    loss = CrossEntropy(smoothing, weight)
    first, second = context(), context()
    total, _ = loss.forward(z, labels, first)
    soft_total, _ = loss.forward(z, np.eye(classes)[labels], second)
    assert_allclose(total, soft_total, rtol=1e-12)
    assert_allclose(loss.backward(first), loss.backward(second), atol=1e-14)


@pytest.mark.parametrize("ignore_index", [-100, -1, 1, None])
def test_ignored_labels_count_nowhere(ignore_index):
    z = rng().normal(size=(5, 3))
    z[1] = math.nan
    labels = np.array([0, 0 if ignore_index is None else ignore_index, 2, 0, 2])
    value, dy = CrossEntropy(ignore_index=ignore_index)(z, labels)
    if ignore_index is None:
        assert math.isnan(value)
        return
    keep = [0, 2, 3, 4]
    expected, expected_dy = CrossEntropy()(z[keep], labels[keep])
    assert_allclose(value, expected, rtol=1e-14)
    assert_array_equal(dy[1], 0)
    assert_allclose(dy[keep], expected_dy, atol=1e-15)


@pytest.mark.parametrize("rows", [0, 3])
def test_the_mean_of_no_labels_is_zero(rows):
    z, labels = rng().normal(size=(rows, 4)).astype("float32"), np.full(rows, -100)
    total, normaliser = CrossEntropy(0.1).forward(z, labels, context("float32"))
    assert (float(total), float(normaliser)) == (0.0, 0.0)
    value, dy = CrossEntropy(0.1)(z, labels)
    assert value == 0.0
    assert_array_equal(dy, np.zeros((rows, 4), "float32"))


@pytest.mark.parametrize("normaliser", [0, 0.0, 4, 2.5, np.float32(0), np.float32(2.5), np.array(0.0), np.array(2.5)])
def test_inverse_keeps_the_type(normaliser):
    scale = inverse(normaliser)
    assert scale == (1 / float(normaliser) if float(normaliser) else 0)
    assert (np.ones(2, "float32") * inverse(np.float32(3))).dtype == "float32"


@pytest.mark.parametrize("label", [4, -1, 1000])
def test_a_label_that_is_no_class_is_named(label):
    labels = np.array([[0, 1], [3, label]])
    with pytest.raises(DataError, match=rf"label {label} at \[1, 1\] is none of the 4 classes.*labels are 0\.\.3"):
        CrossEntropy()(np.zeros((2, 2, 4)), labels)


def test_on_a_device_a_label_that_is_no_class_gives_nan():
    # the host check is the loss's; the kernel itself, which may not wait for the device, must not wrap or clip silently
    z = rng().normal(size=(4, 3))
    (losses, counts), res = host().ops.cross_entropy(z, np.array([0, 3, -100, -1]), ignore_index=-100)
    dz = host().ops.cross_entropy_backward(res)
    assert_array_equal(np.isnan(losses), [False, True, False, True])
    assert_array_equal(np.isnan(counts), [False, True, False, True])
    assert_array_equal(np.isnan(dz).all(axis=1), [False, True, False, True])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_extremes(dtype, smoothing):
    z = np.array([[1e4, 0, -1e4], [3e38, 0, 0], [-3e38, 0, 0], [3e38, -3e38, 0]], dtype=dtype)
    value, dy = CrossEntropy(smoothing)(z[:, :], np.array([0, 0, 1, 0]))
    assert dy.dtype == dtype
    assert np.isfinite(dy).all()
    if not smoothing:
        assert_allclose(value, math.log(2) / 4, rtol=1e-6)
    else:
        assert value > 0
    value, _ = CrossEntropy()(np.array([[1e4, 0, -1e4]], dtype=dtype), np.array([2]))
    assert value == 2e4


def test_soft_labels_of_zero_meet_logits_of_minus_infinity():
    z = np.array([[0.5, -math.inf, 1.0]])
    value, dy = CrossEntropy()(z, np.array([[0.25, 0.0, 0.75]]))
    expected, expected_dy = CrossEntropy()(z[:, [0, 2]], np.array([[0.25, 0.75]]))
    assert_allclose(value, expected, rtol=1e-14)
    assert_allclose(dy[:, [0, 2]], expected_dy, rtol=1e-13)
    assert dy[0, 1] == 0
    hard, _ = CrossEntropy(class_weight=[1.0, 0.0, 1.0])(z, np.array([2]))
    assert hard == pytest.approx(CrossEntropy()(z[:, [0, 2]], np.array([1]))[0])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("target", [np.array([0, 1]), np.array([[1.0, 0.0], [0.5, 0.5]])])
def test_a_logit_that_is_no_number_gives_nan_without_an_exception(bad, target):
    value, dy = CrossEntropy(0.1)(np.array([[bad, 0.0], [1.0, 2.0]]), target)
    assert math.isnan(value)
    assert np.isnan(dy[0]).all()
    assert np.isfinite(dy[1]).all()
    for loss in (MSE(), L1(), BCEWithLogits()):
        value, dy = loss(np.array([[bad, 0.0]]), np.array([[0.5, 0.5]]))
        assert not math.isfinite(value)
        assert dy.shape == (1, 2)


def test_huge_numbers_overflow_without_a_warning():
    big = np.full((2, 3), 3e38, dtype="float32")
    assert MSE()(big, -big)[0] == math.inf
    assert L1()(big, -big)[0] == math.inf
    assert L1()(big, 0 * big)[0] == math.inf  # the sum overflows
    assert BCEWithLogits()(big, 0 * big)[0] == math.inf
    assert CrossEntropy()(big * np.array([1, -1, -1], "float32"), np.array([1, 1]))[0] == math.inf


@pytest.mark.parametrize("pos_weight", [None, 2.5, [0.5, 1.0, 3.0]])
def test_bce_is_its_definition(pos_weight):
    g = rng(2)
    z, y = g.normal(size=(4, 2, 3)) * 4, g.uniform(size=(4, 2, 3))
    p, w = 1 / (1 + np.exp(-z)), np.asarray(1.0 if pos_weight is None else pos_weight)
    value, dy = BCEWithLogits(pos_weight)(z, y)
    assert_allclose(value, -(w * y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), rtol=1e-12)
    assert_allclose(dy, numeric_gradient(lambda v: BCEWithLogits(pos_weight)(v, y)[0], z), atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bce_of_extremes(dtype):
    z = np.array([1e4, -1e4, 3e38, -3e38, 0.0, -50.0], dtype=dtype)
    value, dy = BCEWithLogits()(z, np.array([1, 0, 1, 0, 0, 0], dtype=dtype))
    assert_allclose(value, (math.log(2) + math.exp(-50)) / 6, rtol=1e-6)
    assert_allclose(dy * 6, [0, 0, 0, 0, 0.5, math.exp(-50)], rtol=1e-6)


def test_a_list_of_weights_needs_an_output_for_each():
    for shape in [(3,), (4, 2)]:  # a batch of scalars has no axis for them
        with pytest.raises(ShapeError, match="pos_weight has 3 numbers"):
            BCEWithLogits([0.5, 2.0, 3.0])(np.zeros(shape), np.zeros(shape))


def test_mse_and_l1_by_hand():
    x, t = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[0.0, 2.0], [5.0, 4.0]])
    value, dy = MSE()(x, t)
    assert value == (1 + 0 + 4 + 1) / 4
    assert_array_equal(dy, np.array([[1, 0], [-2, 1]]) / 2)
    value, dy = L1()(x, t)
    assert value == (1 + 0 + 2 + 1) / 4
    assert_array_equal(dy, np.array([[1, 0], [-1, 1]]) / 4)


@pytest.mark.parametrize("loss", [MSE(), L1(), BCEWithLogits()])
def test_elementwise_losses_never_broadcast_and_take_no_labels(loss):
    with pytest.raises(ShapeError, match=r"target has shape \(4,\), the outputs have \(4, 1\)"):
        loss(np.zeros((4, 1)), np.zeros(4))
    with pytest.raises(DataError, match=r"takes float targets, got int64.*CrossEntropy"):
        loss(np.zeros((4, 1)), np.zeros((4, 1), dtype=int))


def test_cross_entropy_says_which_shapes_differ():
    z = np.zeros((4, 3))
    with pytest.raises(ShapeError, match=r"labels have shape \(3,\).*\(4, 3\) take \(4,\)"):
        CrossEntropy()(z, np.zeros(3, dtype=int))
    with pytest.raises(ShapeError, match=r"one-hot and soft labels must be floats"):
        CrossEntropy()(z, np.zeros((4, 3), dtype=int))
    with pytest.raises(ShapeError, match=r"soft labels \(float\) have shape \(4,\), the outputs \(4, 3\)"):
        CrossEntropy()(z, np.zeros(4))
    with pytest.raises(DataError, match="class labels are bool"):
        CrossEntropy()(z, np.zeros(4, dtype=bool))
    with pytest.raises(ShapeError, match="class_weight has 2 numbers, the outputs 3 classes"):
        CrossEntropy(class_weight=[1.0, 2.0])(z, np.zeros(4, dtype=int))
    with pytest.raises(ShapeError, match="class_weight has 2 numbers"):
        CrossEntropy(class_weight=[1.0, 2.0]).check((3,))
    with pytest.raises(ShapeError, match="Linear"):
        CrossEntropy()(np.zeros(4), np.zeros(4, dtype=int))
    with pytest.raises(DataError, match="ignore_index: 1 means nothing"):
        CrossEntropy(ignore_index=1)(z, np.zeros((4, 3)))
    with pytest.raises(DataError, match="the outputs are int64"):
        CrossEntropy()(np.zeros((4, 3), dtype=int), np.zeros(4, dtype=int))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(1.5), "label_smoothing must lie in 0..1, got 1.5"),
        (lambda: CrossEntropy(class_weight=[1.0, -2.0]), "class_weight must be finite and not negative"),
        (lambda: CrossEntropy(class_weight=[1.0, math.nan]), "class_weight must be finite"),
        (lambda: BCEWithLogits(-1.0), "pos_weight must be finite and not negative, got -1.0"),
        (lambda: Objective(MSE(), weight=math.nan), "weight must be finite"),
        (lambda: Objective(L2Penalty(), on="aux"), "on: aux means nothing for L2Penalty"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("loss", [CrossEntropy(0.1, [1.0, 2.0, 3.0]), BCEWithLogits(2.0), MSE(), L1()])
def test_sums_and_normalisers_of_parts_add_up_to_the_whole(loss):
    g = rng(4)
    z = g.normal(size=(7, 3))
    target = g.integers(0, 3, 7) if isinstance(loss, CrossEntropy) else g.uniform(size=(7, 3))
    ctx = context()
    whole = loss.forward(z, target, ctx)
    dy = loss.backward(ctx)
    sums, normalisers, gradients = [], [], []
    for part in (slice(0, 2), slice(2, 7)):
        ctx = context()
        s, n = loss.forward(z[part], target[part], ctx)
        sums.append(s)
        normalisers.append(n)
        gradients.append(loss.backward(ctx))
    assert_allclose(sum(sums), whole[0], rtol=1e-14)
    assert_allclose(sum(normalisers), whole[1], rtol=1e-14)
    assert_allclose(np.concatenate(gradients), dy, atol=1e-15)


@pytest.mark.parametrize("loss", [CrossEntropy(0.1, [1.0, 2.0, 3.0]), BCEWithLogits([1.0, 2.0, 3.0]), MSE(), L1()])
def test_float32_stays_float32_and_inputs_stay_as_they_are(loss: Loss):
    z = np.asfortranarray(rng(5).normal(size=(4, 3)).astype("float32"))
    target: np.ndarray = np.array([0, 1, 2, 1]) if isinstance(loss, CrossEntropy) else np.full((4, 3), 0.3)
    z.flags.writeable = target.flags.writeable = False
    before = z.copy()
    ctx = context("float32")
    total, normaliser = loss.forward(z, target, ctx)
    assert np.asarray(total).dtype == "float32"
    assert (np.ones(1, "float32") * inverse(normaliser)).dtype == "float32"
    assert loss.backward(ctx).dtype == "float32"
    assert_array_equal(z, before)
    assert loss(z, target)[1].dtype == "float32"
