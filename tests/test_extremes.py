"""Finite numbers in, finite numbers out: forward and backward, in both float types, without a warning of numpy's.

Activations and losses take anything up to near the largest float; norms up to 1e18, whose squares float32 can hold, but
not the sum of their squares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layernet as ln
from layernet.config.names import BUILT_IN
from tests.layers.one_layer import net_of, run

DTYPES = ["float32", "float64"]
SATURATING = ("layers.activation:", "layers.rectifier:", "layers.squash:")
ACTIVATIONS = [name for name, place in BUILT_IN["layer"].items() if any(family in place for family in SATURATING)]
SPECIAL: dict[str, list[ln.Layer]] = {
    "GELU": [ln.GELU(), ln.GELU("tanh")],
    "Softplus": [ln.Softplus(), ln.Softplus(3.0), ln.Softplus(threshold=4.0)],
    "LeakyReLU": [ln.LeakyReLU(0.1)],
    "Tanhshrink": [ln.Tanhshrink(), ln.Tanhshrink(0.5)],
}


def ladder(dtype: str) -> np.ndarray[Any, Any]:
    """Numbers of both signs from the smallest to near the largest."""
    info = np.finfo(dtype)
    sizes = [0.0, info.smallest_subnormal, info.tiny, 1e-20, 1e-3, 1, 3, 4, 10, 20, 40, 88, 89, 104, 710, 746, 1e4]
    sizes += [1e10, 1e18, 1e30, float(info.max) * 0.9]
    return np.array([sign * size for size in sizes for sign in (1, -1)], dtype=dtype)


def finite(*arrays: Any) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, training: bool, dtype: str) -> None:
    values = ladder(dtype)
    pairs = np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)  # each beside each: for softmax, and gates
    for layer in SPECIAL.get(name, [getattr(ln, name)()]):
        net = ln.Net([layer.clone()], (2,)).bind("cpu", dtype)
        net.freeze("*") if net.params() else None  # a slope's gradient is a sum of inputs, which may be too large
        tape = net.forward(pairs, training, needs_input_grad=True)
        y = tape.output.copy()
        dx = net.backward(tape, np.ones_like(y))
        # the log of a probability may be twice as low as float can hold: it becomes the lowest number
        assert finite(y, dx), name


NORMS: dict[str, tuple[ln.Layer, tuple[int, ...]]] = {
    "BatchNorm": (ln.BatchNorm(), (4, 4, 3)),
    "LayerNorm": (ln.LayerNorm(), (2, 600)),
    "GroupNorm": (ln.GroupNorm(2), (9, 9, 8)),
    "InstanceNorm2d": (ln.InstanceNorm2d(affine=True, track_running_stats=True), (20, 20, 2)),
    "RMSNorm": (ln.RMSNorm(eps=1e-6), (600,)),
    "LocalResponseNorm": (ln.LocalResponseNorm(5), (3, 3, 16)),
    "LocalResponseNorm, one wide block": (ln.LocalResponseNorm(600, blocked=True), (2, 600)),
    "LocalResponseNorm within": (ln.LocalResponseNorm(19, region="within_channel"), (20, 20, 2)),
    "LocalContrastNorm": (ln.LocalContrastNorm(19), (20, 20, 2)),
}


def test_all_norms_are_here() -> None:
    built_in = {name for name, place in BUILT_IN["layer"].items() if "layers.norm:" in place or "local_norm:" in place}
    assert {name.partition(",")[0].removesuffix(" within") for name in NORMS} == built_in


@pytest.mark.parametrize("size", [1e18, 1e9, 1e-9, 1e-18, 0.0])
@pytest.mark.parametrize("kind", ["normal", "signs", "constant", "one large"])
@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str, kind: str, size: float) -> None:
    layer, shape = NORMS[name]
    x = np.random.default_rng(0).normal(size=(40, *shape)).clip(-1, 1)
    if kind == "signs":
        x = np.sign(x)
    if kind == "constant":
        x = np.ones_like(x)
    if kind == "one large":
        x.reshape(-1)[1:] *= 1e-9
    x = (size * x).astype("float32")
    for training in (True, False):
        single = run(net_of(layer.clone(), x), x, training=training)
        double = run(net_of(layer.clone(), x.astype("float64")), x.astype("float64"), training=training)
        assert finite(single.y, single.dx, *single.grads.values()), training
        assert finite(double.y, double.dx, *double.grads.values()), training
        if kind != "constant":  # whose rounding a norm by the variance makes large
            np.testing.assert_allclose(single.y, double.y, rtol=1e-3, atol=1e-3 * max(abs(double.y).max(), 1e-30))


@pytest.mark.parametrize("name", [name for name in NORMS if "wide" not in name])
def test_gradients_of_norms_are_right_at_any_size(name: str) -> None:
    layer, shape = NORMS[name]
    x = np.random.default_rng(0).normal(size=(40, *shape)).clip(-1, 1)
    dy = np.random.default_rng(1).normal(size=x.shape)
    for size in (1e18, 1e9, 1.0):
        large = (size * x).astype("float32")
        single = run(net_of(layer.clone(), large), large, dy.astype("float32"))
        wide = large.astype("float64")
        double = run(net_of(layer.clone(), wide), wide, dy)
        np.testing.assert_allclose(single.dx, double.dx, rtol=0, atol=3e-4 * abs(double.dx).max())
        for path, gradient in double.grads.items():
            np.testing.assert_allclose(single.grads[path], gradient, rtol=0, atol=2e-6 * abs(gradient).max())


LOGITS = {
    "CrossEntropy": (ln.CrossEntropy(), "labels"),
    "CrossEntropy, smoothing": (ln.CrossEntropy(label_smoothing=0.1), "labels"),
    "CrossEntropy, soft": (ln.CrossEntropy(), "shares"),
    "Focal": (ln.Focal(), "labels"),
    "BCEWithLogits": (ln.BCEWithLogits(), "bits"),
    "SigmoidFocal": (ln.SigmoidFocal(), "bits"),
    "Dice": (ln.Dice(), "map"),
    "Dice of shares": (ln.Dice(), "bits"),
    "MultiMargin": (ln.MultiMargin(), "labels"),
    "NLL": (ln.NLL(), "labels"),
    "KLDiv": (ln.KLDiv(), "shares"),
    "Hinge": (ln.Hinge(), "sides"),
    "Huber": (ln.Huber(), "bits"),
    "SmoothL1": (ln.SmoothL1(), "bits"),
    "L1": (ln.L1(), "bits"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOGITS)
def test_losses(name: str, dtype: str) -> None:
    loss, kind = LOGITS[name]
    values = ladder(dtype) * np.array(0.5, dtype)  # the difference of two can be held
    z = np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)
    for column in (0, 1):
        target: np.ndarray[Any, Any] = np.full(len(z), column)
        if kind in ("bits", "sides", "shares"):
            target = np.eye(2, dtype=dtype)[target]
        if kind == "sides":
            target = 2 * target - 1
        outputs = z
        if "Dice" in name:
            outputs, target = z.reshape(len(z), 1, 2), target.reshape(len(z), 1, *target.shape[1:])
        _, dy = loss(outputs, target)
        assert finite(dy)
        assert abs(dy).max() <= 1.0
        for row in range(0, len(z), 7):  # one by one: the sum of many may be more than the float type can hold
            one, dy = loss(outputs[row : row + 1], target[row : row + 1])
            assert finite(one, dy), z[row]
