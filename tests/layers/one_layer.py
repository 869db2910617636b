"""A small net, run once: what the tests of layers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layernet.core.layer import Layer
from layernet.core.net import Net

Array = np.ndarray[Any, Any]


@dataclass
class Pass:
    """One forward and backward: output, gradient of the input, gradients of the parameters by path."""

    y: Array
    dx: Array
    grads: dict[str, Array]


def numbers(shape: Sequence[int], seed: int = 0, dtype: str = "float64") -> Array:
    """Normal numbers, none of them near 0, where the activations have kinks."""
    values = np.random.default_rng(seed).normal(size=shape)
    return (values + 0.05 * np.sign(values)).astype(dtype)


def net_of(layers: Layer | list[Layer], x: Array, seed: int = 3) -> Net:
    """The layers, bound in x's float type, every parameter and statistic off its initial value."""
    net = Net(layers if isinstance(layers, list) else [layers], x.shape[1:]).bind("cpu", str(x.dtype))
    rng = np.random.default_rng(seed)
    for param in net.params().values():
        param.data[...] += 0.3 * rng.normal(size=param.shape)
    for path, buffer in net.buffers().items():
        buffer.data[...] += rng.uniform(0.1, 0.9, size=buffer.shape) * (1 if path.endswith("var") else -1)
    return net


def run(net: Net, x: Array, dy: Array | dict[str, Array] | None = None, training: bool = True, step: int = 0) -> Pass:
    """One pass from zeroed gradients; dy is normal by default. Checks that neither x nor dy was changed."""
    net.zero_grad()
    x.flags.writeable = False
    tape = net.forward(x, training, step=step, needs_input_grad=True)
    if dy is None:
        dy = numbers(tape.output.shape, 7, str(x.dtype))
    for array in dy.values() if isinstance(dy, dict) else [dy]:
        array.flags.writeable = False
    y = tape.output.copy()
    dx = net.backward(tape, dy)
    assert dx is not None
    assert dx.dtype == x.dtype
    return Pass(y, dx, {path: param.grad.copy() for path, param in net.params().items()})


def central_differences(f: Callable[[], float], array: Array, h: float = 1e-5) -> Array:
    """The gradient of f with respect to every element of an array that f reads."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + h
        above = f()
        array[index] = before - h
        gradient[index] = (above - f()) / (2 * h)
        array[index] = before
    return gradient


def check_gradients(net: Net, x: Array, training: bool = True, rtol: float = 1e-7) -> None:
    """Compare all gradients with central differences, in float64; frozen parameters have none."""
    found = run(net, x.copy(), training=training)
    x = x.copy()  # to be moved about
    dy = numbers(found.y.shape, 7)

    def value() -> float:
        return float((net.forward(x, training, step=0, recording=False).output * dy).sum())

    close(found.dx, central_differences(value, x), rtol)
    for path, param in net.params().items():
        if param.frozen:
            assert not found.grads[path].any()
        else:
            close(found.grads[path], central_differences(value, param.data), rtol)


def close(found: Array, expected: Array, tolerance: float) -> None:
    """Equal within tolerance of the largest number in them (and of 1)."""
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1.0, float(abs(expected).max())))
