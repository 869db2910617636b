"""Transforms that mix examples and their labels: MixUp and CutMix (docs/decisions/0016-transforms-that-see-targets)."""

from __future__ import annotations

import math

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.random import Stream
from layernet.data.transforms import Transform, image_shape
from layernet.errors import DataError, UsageError

_TRIES = 16  # of a gamma variate: each is taken in 95 of 100 cases or more


class Mix(Transform):
    """Base of MixUp and CutMix: shares of partners, drawn from Beta(alpha, alpha), and soft labels of them."""

    def __init__(self, num_classes: int, alpha: float = 1.0, p: float = 1.0) -> None:
        if isinstance(num_classes, bool) or num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        if not 0.0 < alpha < math.inf:
            raise ValueError(f"alpha must be positive and finite, got {alpha}")
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p must be a probability, got {p}")
        self.num_classes = num_classes
        self.alpha = alpha
        self.p = p

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        if rng is not None:
            raise UsageError(f"{type(self).__name__} changes targets too", "call with_target(x, target, rng)")
        return x

    def with_target(self, x: Array, target: Array, rng: Stream | None = None) -> tuple[Array, Array]:
        if rng is None:
            return x, target
        q = self._soft(target)
        partner = rng.permutation(len(x))
        share = np.where(rng.keep_mask((len(x),), self.p), beta(self.alpha, (len(x),), rng), 1.0)
        y, share = self.mixed(x, partner, share, rng)
        kept = share.astype(np.float32)[:, np.newaxis]
        return y, q * kept + q[partner] * (1 - kept)

    def mixed(self, x: Array, partner: Array, share: Array, rng: Stream) -> tuple[Array, Array]:
        """(the mixture of x and x[partner], the share (N,) that x in fact has of it)."""
        raise NotImplementedError(f"{type(self).__name__} has no mixed")

    def _soft(self, target: Array) -> Array:
        """Labels as shares of the classes, float32 (N, num_classes)."""
        if target.ndim == 2 and target.shape[1] == self.num_classes and target.dtype.kind == "f":
            return target.astype(np.float32)
        if target.ndim != 1 or target.dtype.kind not in "iu":
            what = f"{target.dtype} of shape {target.shape}"
            raise DataError(f"{type(self).__name__} mixes class labels (N,) or soft ones (N, num_classes), got {what}")
        wrong = target[(target < 0) | (target >= self.num_classes)]
        if len(wrong):
            raise DataError(f"label {wrong[0]} is none of num_classes {self.num_classes} of {type(self).__name__}")
        return np.eye(self.num_classes, dtype=np.float32)[target]


class MixUp(Mix):
    """y = s x + (1 - s) x', q = s q_x + (1 - s) q_x': each example mixed with another of its batch.

    s is drawn for each example from Beta(`alpha`, `alpha`), with probability `p`, and is 1 otherwise; x' is the example
    at its place in a random order. Labels become soft: float32 (N, `num_classes`), which CrossEntropy takes and
    accuracy counts by their largest. uint8 pixels become float32 0..1. In evaluation: nothing. Shape: any -> same.
    (torchvision draws one s a batch.) (Zhang et al. 2017, arXiv:1710.09412)
    Raises DataError for labels that are none of num_classes.
    """

    def mixed(self, x: Array, partner: Array, share: Array, rng: Stream) -> tuple[Array, Array]:
        if x.dtype.kind in "iu" and x.dtype != np.uint8:
            raise DataError(f"MixUp cannot mix indices ({x.dtype})")
        unit = np.float32(255 if x.dtype == np.uint8 else 1)
        s = share.astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))
        return (s * x + (1 - s) * x[partner]) / unit, share


class CutMix(Mix):
    """Puts a window of another image of the batch into each, labels mixed by area (Yun et al. 2019, arXiv:1905.04899).

    The window has sqrt(1 - s) of the height and of the width, rounded down, s from Beta(`alpha`, `alpha`), around a
    pixel drawn evenly, cut at the border; the label's own share is then the area that is left. With probability
    1 - `p` an image stays. Partners and soft labels as of MixUp. In evaluation: nothing. Shape: (H, W, C) -> same.
    (torchvision draws one window a batch.)
    Raises DataError for labels that are none of num_classes.
    """

    def mixed(self, x: Array, partner: Array, share: Array, rng: Stream) -> tuple[Array, Array]:
        height, width = x.shape[1:3]
        (top, bottom), (left, right) = (self._sides(length, share, rng) for length in (height, width))
        y = x.copy()
        for n, other in enumerate(partner):
            window = slice(top[n], bottom[n]), slice(left[n], right[n])
            y[n][window] = x[other][window]
        return y, 1 - (bottom - top) * (right - left) / (height * width)

    def _sides(self, length: int, share: Array, rng: Stream) -> tuple[Array, Array]:
        """Along one axis, the first pixel of each window and the first behind it."""
        extent = np.floor(np.sqrt(1 - share) * length).astype(np.int64)
        start = rng.integers(0, length, share.shape) - extent // 2
        return np.maximum(start, 0), np.minimum(start + extent, length)

    def out_shape(self, in_shape: Shape) -> Shape:
        return image_shape(self, in_shape)


def beta(alpha: float, shape: Shape, rng: Stream) -> Array:
    """Numbers from Beta(alpha, alpha), float64: g / (g + g') of two gamma variates, by their logarithms."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(_log_gamma_variate(alpha, shape, rng) - _log_gamma_variate(alpha, shape, rng)))


def _log_gamma_variate(alpha: float, shape: Shape, rng: Stream) -> Array:
    """Logarithms of Gamma(alpha) variates: d v with v = (1 + z / sqrt(9 d))^3, z normal, d = alpha + 2/3, taken where
    log u < z^2 / 2 + d (1 - v + log v), is Gamma(alpha + 1); times u'^(1 / alpha) it is Gamma(alpha).

    All tries are drawn at once, so that what follows in the stream does not depend on their luck; that none is taken
    happens once in 10^20 and gives d. Source: Marsaglia and Tsang, "A simple method for generating gamma variables",
    2000.
    """
    d = alpha + 2 / 3
    z = rng.normal((*shape, _TRIES)).astype(np.float64)
    u = rng.uniform((*shape, _TRIES)).astype(np.float64)
    v = (1 + z / math.sqrt(9 * d)) ** 3
    log_v = np.log(np.maximum(v, 1e-300))
    taken = (v > 0) & (np.log(u) < z * z / 2 + d * (1 - v + log_v))
    first = taken.argmax(axis=-1)[..., np.newaxis]
    found = np.where(taken.any(axis=-1), np.take_along_axis(log_v, first, axis=-1)[..., 0], 0.0)
    return math.log(d) + found + np.log(rng.uniform(shape).astype(np.float64)) / alpha
