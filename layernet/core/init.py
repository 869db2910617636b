"""Initialisers: how the values of a parameter are drawn before training.

An initialiser is anything callable as `f(shape, rng) -> array`, `rng` being a keyed `Stream`; a user's own function is
one. Weights are stored output first, `(out, ..., in)`, so fan_in is the product of all axes but the first, and fan_out
the product of all but the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.random import Stream
from layernet.core.configurable import Configurable
from layernet.errors import did_you_mean

InitFunction = Callable[[Shape, Stream], Array]
Nonlinearity = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]


class Initializer(Configurable):
    """Base of the built-in initialisers."""

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        raise NotImplementedError


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight `(out, ..., in)`. Raises ValueError for fewer than two axes."""
    if len(shape) < 2:
        raise ValueError(f"fan_in and fan_out need a weight of at least two axes, got shape {shape}")
    return math.prod(shape[1:]), math.prod(shape[:-1])


def gain_of(nonlinearity: Nonlinearity, slope: float = 0.01) -> float:
    """What a layer's weights are multiplied by so that its nonlinearity keeps the second moment.

    For ReLU, half of a symmetric signal's energy passes, so the gain is sqrt(2) (He et al. 2015). The values are those
    of torch.nn.init.calculate_gain; `slope` is LeakyReLU's. Raises ValueError for an unknown nonlinearity.
    """
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5.0 / 3.0,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1.0 + slope * slope)),
        "selu": 0.75,
    }
    if nonlinearity not in gains:
        raise ValueError(f"unknown nonlinearity {nonlinearity!r}; {did_you_mean(nonlinearity, gains)}")
    return gains[nonlinearity]


class constant(Initializer):
    """Every element is `value`."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        return np.full(shape, self.value)


class normal(Initializer):
    """N(mean, std^2)."""

    def __init__(self, std: float = 0.01, mean: float = 0.0) -> None:
        _positive("std", std)
        self.std, self.mean = std, mean

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        return rng.normal(shape, self.mean, self.std)


class truncated_normal(Initializer):
    """N(mean, std^2) restricted to mean +- `cut` standard deviations, by redrawing what falls outside.

    `std` is that of the normal before the cut, as in torch.nn.init.trunc_normal_.
    """

    def __init__(self, std: float = 0.01, mean: float = 0.0, cut: float = 2.0) -> None:
        _positive("std", std)
        _positive("cut", cut)
        self.std, self.mean, self.cut = std, mean, cut

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        values = rng.normal(shape)
        while (outside := abs(values) > self.cut).any():
            values[outside] = rng.normal((int(outside.sum()),))
        return values * self.std + self.mean


class uniform(Initializer):
    """Uniform between `low` and `high`."""

    def __init__(self, low: float = -0.01, high: float = 0.01) -> None:
        if not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        self.low, self.high = low, high

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        return rng.uniform(shape, self.low, self.high)


class xavier_normal(Initializer):
    """N(0, gain^2 * 2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    def __init__(self, gain: float = 1.0) -> None:
        _positive("gain", gain)
        self.gain = gain

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        return rng.normal(shape, 0.0, self.gain * math.sqrt(2.0 / sum(fans(shape))))


class xavier_uniform(Initializer):
    """Uniform with the variance of `xavier_normal` (Glorot and Bengio 2010)."""

    def __init__(self, gain: float = 1.0) -> None:
        _positive("gain", gain)
        self.gain = gain

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        bound = self.gain * math.sqrt(6.0 / sum(fans(shape)))
        return rng.uniform(shape, -bound, bound)


class _Kaiming(Initializer):
    def __init__(
        self,
        mode: Literal["fan_in", "fan_out"] = "fan_in",
        nonlinearity: Nonlinearity = "relu",
        slope: float = 0.01,
    ) -> None:
        if mode not in ("fan_in", "fan_out"):
            raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
        self.mode, self.gain = mode, gain_of(nonlinearity, slope)

    def _std(self, shape: Shape) -> float:
        return self.gain / math.sqrt(fans(shape)[0 if self.mode == "fan_in" else 1])


class kaiming_normal(_Kaiming):
    """N(0, gain^2 / fan): keeps the second moment through layers (He et al. 2015, arXiv:1502.01852).

    A unit sums fan_in products of variance var(w) E[x^2], so var(w) = gain^2 / fan_in keeps E[y^2] forward;
    mode `fan_out` keeps the gradients' backward. `slope` is LeakyReLU's.
    """

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        return rng.normal(shape, 0.0, self._std(shape))


class kaiming_uniform(_Kaiming):
    """Uniform with the variance of `kaiming_normal` (He et al. 2015, arXiv:1502.01852)."""

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        bound = math.sqrt(3.0) * self._std(shape)
        return rng.uniform(shape, -bound, bound)


class orthogonal(Initializer):
    """The weight, seen as a matrix (out, rest), has orthonormal rows or columns, times `gain` (Saxe et al. 2013).

    Taken from the QR decomposition of a normal matrix, with the signs of R's diagonal moved into Q so that Q is
    uniformly distributed.
    """

    def __init__(self, gain: float = 1.0) -> None:
        _positive("gain", gain)
        self.gain = gain

    def __call__(self, shape: Shape, rng: Stream) -> Array:
        if len(shape) < 2:
            raise ValueError(f"orthogonal needs a weight of at least two axes, got shape {shape}")
        rows, columns = shape[0], math.prod(shape[1:])
        tall: np.ndarray[Any, Any] = rng.normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(tall)
        q = q * np.sign(np.diag(r))
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
