"""The losses beside cross-entropy, BCE, MSE and L1: naive loops in float64, extremes, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from layernet.backend.device import host
from layernet.core.context import Context, Tape
from layernet.errors import DataError, ShapeError
from layernet.losses import (
    MSE,
    NLL,
    BCEWithLogits,
    CrossEntropy,
    Dice,
    Focal,
    Hinge,
    Huber,
    KLDiv,
    Loss,
    MultiMargin,
    SigmoidFocal,
    SmoothL1,
    SumOfSquares,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def softmax(row: np.ndarray) -> list[float]:
    e = [math.exp(v) for v in row]
    return [v / sum(e) for v in e]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def numeric_gradient(loss: Loss, x: np.ndarray, target: np.ndarray, h: float = 1e-5) -> np.ndarray:
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        plus, minus = x.copy(), x.copy()
        plus[index] += h
        minus[index] -= h
        gradient[index] = (loss(plus, target)[0] - loss(minus, target)[0]) / (2 * h)
    return gradient


def same(loss: Loss, x: np.ndarray, target: np.ndarray, expected: float) -> None:
    value, dx = loss(x, target)
    assert_allclose(value, expected, rtol=1e-13)
    assert_allclose(dx, numeric_gradient(loss, x, target), atol=1e-9)


def log_probabilities(*shape: int) -> np.ndarray:
    z = rng(1).normal(size=shape)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 0.0, 1.0]])
def test_nll_and_focal_are_their_definitions(weight):
    x, y = log_probabilities(3, 2, 4), np.array([[0, 3], [-100, 1], [2, 0]])
    w = weight or [1.0] * 4
    kept = [(index, c) for index, c in np.ndenumerate(y) if c != -100]
    count = sum(w[c] for _, c in kept)
    same(NLL(weight), x, y, sum(-w[c] * x[index][c] for index, c in kept) / count)
    z = 2 * x
    for gamma in (0.5, 1.0, 2.0):
        p = {index: softmax(z[index])[c] for index, c in kept}
        total = sum(-w[c] * (1 - p[index]) ** gamma * math.log(p[index]) for index, c in kept)
        same(Focal(gamma, weight), z, y, total / count)


def test_nll_of_log_softmax_and_focal_of_gamma_0_are_cross_entropy():
    z, y, weight = rng(2).normal(size=(5, 3)), np.array([0, 2, -100, 1, 2]), [0.5, 1.0, 2.0]
    x = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    expected, dz = CrossEntropy(class_weight=weight)(z, y)
    value, dx = NLL(weight)(x, y)
    assert_allclose(value, expected, rtol=1e-14)
    assert_allclose(dx - np.exp(x) * dx.sum(axis=1, keepdims=True), dz, atol=1e-15)  # back through the log softmax
    value, found = Focal(0.0, weight)(z, y)
    assert_allclose(value, expected, rtol=1e-14)
    assert_allclose(found, dz, atol=1e-15)


@pytest.mark.parametrize("loss", [NLL(), Focal(), Dice()])
def test_ignored_labels_and_the_mean_of_none(loss):
    z = rng(3).normal(size=(1, 4, 3))
    z[0, 1] = math.nan
    value, dz = loss(z, np.array([[0, -100, 2, 1]]))
    assert math.isfinite(value)
    assert_array_equal(dz[0, 1], 0)
    expected, expected_dz = loss(z[:, [0, 2, 3]], np.array([[0, 2, 1]]))
    assert_allclose(value, expected, rtol=1e-14)
    assert_allclose(dz[:, [0, 2, 3]], expected_dz, atol=1e-16)
    value, dz = loss(z, np.full((1, 4), -100))
    assert value == 0.0
    assert_array_equal(dz, 0)


@pytest.mark.parametrize("loss", [NLL(), Focal(), MultiMargin(), Dice(), NLL([1.0, 2.0, 3.0])])
def test_on_a_device_a_label_that_is_no_class_gives_nan(loss, monkeypatch):
    with pytest.raises(DataError, match=r"label 3 at \[0, 1\] is none of the 3 classes"):
        loss(np.zeros((1, 2, 3)), np.array([[0, 3]]))
    monkeypatch.setattr("layernet.losses.base.check_labels", lambda *_: None)  # as a device's labels, not looked at
    for wrong in (3, -1):
        assert math.isnan(loss(rng().normal(size=(1, 2, 3)), np.array([[0, wrong]]))[0])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_focal_losses_of_extremes(gamma, dtype):
    z = np.array([[1e4, 0, -1e4], [3e38, 0, 0], [-3e38, 0, 0], [3e38, -3e38, 0], [0, -50, 50]], dtype=dtype)
    value, dz = Focal(gamma)(z, np.array([0, 0, 1, 0, 2]))
    assert_allclose(value, 0.5**gamma * math.log(2) / 5, rtol=1e-6)
    assert np.isfinite(dz).all()
    value, dz = Focal(gamma)(z[:3], np.array([2, 1, 0]))
    assert value > 1e37
    assert_allclose(dz[1] * 3, [1, -1, 0])  # as cross-entropy's, where nothing is learned yet
    z = np.array([3e38, -3e38, 1e4, -1e4, -50], dtype=dtype)
    value, dz = SigmoidFocal(gamma, None)(z, np.array([1, 0, 1, 0, 0], dtype=dtype))
    assert value == pytest.approx(math.exp(-50) ** (1 + gamma) / 5, rel=1e-4, abs=1e-40)
    assert np.isfinite(dz).all()
    value, dz = SigmoidFocal(gamma, None)(z[2:4], np.array([0, 1], dtype=dtype))
    assert value == 1e4
    assert_allclose(dz * 2, [1, -1])


@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.7, 2.0])
def test_sigmoid_focal_is_its_definition(alpha, gamma):
    z = rng(4).normal(size=(3, 2, 2)) * 3
    y = rng(5).choice([0.0, 1.0, 0.3], z.shape)
    total = 0.0
    for v, t in zip(z.flat, y.flat, strict=True):
        p = sigmoid(v)
        q = p * t + (1 - p) * (1 - t)
        a = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
        total += a * (1 - q) ** gamma * -(t * math.log(p) + (1 - t) * math.log(1 - p))
    same(SigmoidFocal(gamma, alpha), z, y, total / z.size)


@pytest.mark.parametrize("p", [1, 2])
def test_margins_are_their_definitions(p):
    x = rng(6).normal(size=(4, 3))
    y, labels, w = rng(7).choice([-1.0, 1.0], x.shape), np.array([0, 2, 1, 1]), [0.5, 2.0, 1.5]
    expected = sum(max(0.0, 0.8 - t * v) ** p for v, t in zip(x.flat, y.flat, strict=True)) / x.size
    same(Hinge(0.8, p), x, y, expected)
    total = 0.0
    for row, c in zip(x, labels, strict=True):
        total += w[c] * sum(max(0.0, 0.8 - row[c] + row[i]) ** p for i in range(3) if i != c) / 3
    same(MultiMargin(p, 0.8, w), x, labels, total / 4)  # by the number of labels, not by their weights


def test_hinge_takes_sides():
    with pytest.raises(DataError, match=r"Hinge takes targets of -1 and 1, got 0\.0.*2 \* target - 1"):
        Hinge()(np.zeros((2, 2)), np.array([[1.0, -1.0], [0.0, 1.0]]))


def test_kl_is_its_definition_and_a_share_of_zero_counts_nothing():
    x, q = log_probabilities(2, 3, 4), rng(8).dirichlet(np.ones(4), (2, 3))
    total = sum(t * (math.log(t) - v) for t, v in zip(q.flat, x.flat, strict=True))
    same(KLDiv(), x, q, total / 6)
    same(KLDiv(log_target=True), x, np.log(q), total / 6)
    assert KLDiv()(np.log(q), q)[0] == pytest.approx(0, abs=1e-15)
    x[0, 0, 0] = -math.inf
    q[0, 0] = [0, 0.25, 0.25, 0.5]
    with np.errstate(all="raise"):
        value, dx = KLDiv()(x, q)
    assert math.isfinite(value)
    assert_allclose(dx, -q / 6, rtol=1e-15)


@pytest.mark.parametrize("squared", [False, True])
def test_dice_is_its_definition(squared):
    z, labels = rng(9).normal(size=(2, 3, 2, 3)) * 2, rng(10).integers(0, 3, (2, 3, 2))
    shares = rng(11).uniform(size=z.shape)
    for target in (labels, shares):
        total = 0.0
        for n in range(2):
            for c in range(3):
                both, size = 0.5, 0.5
                for i, j in np.ndindex(3, 2):
                    soft = target.dtype.kind == "f"
                    p = sigmoid(z[n, i, j, c]) if soft else softmax(z[n, i, j])[c]
                    t = target[n, i, j, c] if soft else float(target[n, i, j] == c)
                    both, size = both + 2 * p * t, size + (p * p + t * t if squared else p + t)
                total += 1 - both / size
        same(Dice(0.5, squared), z, target, total / 6)


def test_a_perfect_map_has_no_dice_loss():
    labels = rng(12).integers(0, 3, (2, 5))
    for extreme in (1e4, 3e38):
        z = (np.eye(3)[labels] * 2 - 1).astype("float32") * np.float32(extreme)
        for target in (labels, np.eye(3, dtype="float32")[labels]):
            value, dz = Dice()(z, target)
            assert value == 0
            assert_array_equal(dz, 0)


def test_smooth_losses_by_hand():
    x, t = np.array([[0.25, -4.0, 0.0]]), np.zeros((1, 3))
    for loss, inner, outer in [
        (Huber(), 0.25**2 / 2, 4 - 0.5),
        (Huber(2.0), 0.25**2 / 2, 2 * (4 - 1)),
        (SmoothL1(0.5), 0.25**2 / (2 * 0.5), 4 - 0.25),
        (SmoothL1(0.0), 0.25, 4),
    ]:
        value, dx = loss(x, t)
        assert value == pytest.approx((inner + outer) / 3, rel=1e-15)
        if loss.arguments != {"beta": 0.0}:
            assert_allclose(dx, numeric_gradient(loss, x, t), atol=1e-9)
    assert_array_equal(SmoothL1(0.0)(x, t)[1] * 3, [[1, -1, 0]])
    assert_allclose(SmoothL1(0.3)(x, t)[0], Huber(0.3)(x, t)[0] / 0.3, rtol=1e-14)


def test_sum_of_squares_is_cuda_convnets_sum2():
    x, t = rng(13).normal(size=(4, 3)), rng(14).normal(size=(4, 3))
    value, dx = SumOfSquares()(x, t)
    assert value == pytest.approx(((x - t) ** 2).sum() / 4, rel=1e-14)  # no half, a mean over the examples alone
    assert_allclose(dx, 2 * (x - t) / 4, rtol=1e-14)
    assert value == pytest.approx(3 * MSE()(x, t)[0], rel=1e-14)


def test_several_labels_an_example():
    z, y = rng(15).normal(size=(3, 4)), np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=float)
    terms = [-math.log(sigmoid(v) if t else 1 - sigmoid(v)) for v, t in zip(z.flat, y.flat, strict=True)]
    same(BCEWithLogits(), z, y, sum(terms) / 12)
    torch = pytest.importorskip("torch")
    theirs = torch.nn.MultiLabelSoftMarginLoss()(torch.tensor(z), torch.tensor(y))
    assert_allclose(BCEWithLogits()(z, y)[0], float(theirs), rtol=1e-14)


NUMBERS = [SmoothL1(), Huber(), SumOfSquares(), KLDiv(), SigmoidFocal(), Hinge()]


@pytest.mark.parametrize("loss", NUMBERS)
def test_losses_on_numbers_never_broadcast_and_take_no_labels(loss):
    with pytest.raises(ShapeError, match=r"target has shape \(4,\), the outputs have \(4, 1\)"):
        loss(np.zeros((4, 1)), np.zeros(4))
    with pytest.raises(DataError, match=r"takes float targets, got int64"):
        loss(np.zeros((4, 1)), np.zeros((4, 1), dtype=int))
    assert loss.targets == "numbers"


@pytest.mark.parametrize("loss", [*NUMBERS, NLL(), Focal(), MultiMargin(2), Hinge(p=2), Dice()])
@pytest.mark.parametrize("size", [1.0, 3e38])
def test_sums_add_up_float32_stays_and_nothing_warns(loss, size):
    z = -abs(rng(16).normal(size=(5, 2, 3)).astype("float32"))
    z *= np.float32(size / abs(z).max())
    target = np.ones((5, 2, 3)) if loss.targets == "numbers" else rng(17).integers(0, 3, (5, 2))
    z.flags.writeable = target.flags.writeable = False
    found = []
    for part in (slice(0, 5), slice(0, 2), slice(2, 5)):
        ctx = Context(Tape(host(), "float32", training=True))
        total, normaliser = loss.forward(z[part], target[part], ctx)
        dz = loss.backward(ctx)
        assert np.asarray(total).dtype == dz.dtype == "float32"
        assert dz.shape == z[part].shape
        found.append((total, normaliser, dz))
    if size == 1.0:
        for whole, first, second in zip(*found, strict=True):
            if np.ndim(whole):
                assert_array_equal(whole, np.concatenate([first, second]))
            else:
                assert whole == pytest.approx(first + second, rel=1e-6)


@pytest.mark.parametrize("cls", [NLL, Focal, MultiMargin])
def test_losses_on_labels_look_at_shapes(cls):
    with pytest.raises(ShapeError, match=rf"{cls.__name__} needs outputs of shape"):
        cls().check(())
    with pytest.raises(ShapeError, match="class_weight has 2 numbers, the outputs 3 classes"):
        cls(class_weight=[1.0, 2.0])(np.zeros((1, 3)), np.array([0]))
    with pytest.raises(ShapeError, match="Dice needs outputs of shape"):
        Dice().check((3,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NLL([-1.0]), "class_weight must be finite and not negative"),
        (lambda: Focal(-1.0), "gamma must be a finite number of at least 0, got -1"),
        (lambda: SigmoidFocal(math.inf), "gamma must be a finite number"),
        (lambda: SigmoidFocal(alpha=1.5), "alpha must lie in 0..1, got 1.5"),
        (lambda: MultiMargin(3), "p must be 1 or 2, got 3"),
        (lambda: MultiMargin(margin=math.nan), "margin must be finite"),
        (lambda: Hinge(p=0), "p must be 1 or 2, got 0"),
        (lambda: Hinge(math.inf), "margin must be finite"),
        (lambda: Huber(0.0), "delta must be positive and finite, got 0"),
        (lambda: Huber(math.inf), "delta must be positive and finite, got inf"),
        (lambda: SmoothL1(-1.0), "beta must be a finite number of at least 0"),
        (lambda: Dice(0.0), "smooth must be positive, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
