"""Transforms of whole batches: geometry with keyed randomness. For numbers, see `normalize`.

A transform takes x (N, *shape) and a keyed stream, or None in evaluation, where it does its deterministic form. The
same stream gives the same result; x is never written to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.random import Stream
from layernet.core.configurable import Configurable
from layernet.errors import CheckpointError, ShapeError, UsageError

Size = int | tuple[int, int]
"""One number for both, or [height, width]."""


class Transform(Configurable):
    """A step of preprocessing on whole batches.

    Subclasses write `__call__`, and `out_shape` where they change the shape. One that measures the training data sets
    `needs_fit` until it knows, and writes `fit`, `state` and `load_state`.
    """

    needs_fit: bool = False
    """Whether `fit` must run before use."""

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        """The transformed batch, a new array or a view; random where `rng` is given, deterministic where it is None."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def with_target(self, x: Array, target: Array, rng: Stream | None = None) -> tuple[Array, Array]:
        """(x, target) as the loader passes them on. To be overridden by what changes targets too."""
        return self(x, rng), target

    def out_shape(self, in_shape: Shape) -> Shape:
        """The shape of one example afterwards. Raises ShapeError where examples of `in_shape` cannot be taken."""
        return in_shape

    def fit(self, batches: Iterable[Array]) -> None:
        """Measure the training data: every batch once, as the transforms before this one leave it in evaluation."""

    def state(self) -> dict[str, Array]:
        """What was measured, to be stored with the run."""
        return {}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Take over what `state` returned. Raises CheckpointError where it does not fit."""
        if state:
            raise CheckpointError(f"{type(self).__name__} stores nothing, found {', '.join(state)}")


class Pad(Transform):
    """Adds `padding` rows and columns of value `fill` on each side.

    `padding`: one number, or [vertical, horizontal]. `fill`: in the units of what comes in, 0..255 for uint8 pixels.
    Shape: (H, W, C) -> (H + 2 vertical, W + 2 horizontal, C).
    """

    def __init__(self, padding: Size, fill: float = 0.0) -> None:
        self.padding = size_pair("padding", padding, 0)
        self.fill = finite("fill", fill)

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        return _padded(x, self.padding, self.fill)

    def out_shape(self, in_shape: Shape) -> Shape:
        height, width, channels = image_shape(self, in_shape)
        return height + 2 * self.padding[0], width + 2 * self.padding[1], channels


class CenterCrop(Transform):
    """The middle `size` pixels; what is odd is cut at the bottom and right: the first row is floor((H - h) / 2).

    `size`: one number for a square, or [height, width]. Shape: (H, W, C) -> (h, w, C).
    """

    def __init__(self, size: Size) -> None:
        self.size = size_pair("size", size, 1)

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        return _centre(x, self.size)

    def out_shape(self, in_shape: Shape) -> Shape:
        _refuse_larger(self, self.size, image_shape(self, in_shape), "pad first, with Pad")
        return *self.size, in_shape[2]


class RandomCrop(Transform):
    """A window of `size` pixels at a random place of the padded image, each example's own.

    In evaluation the window in the middle, as of CenterCrop. `size`: one number for a square, or [height, width].
    `padding` and `fill`: as of Pad. Shape: (H, W, C) -> (h, w, C).
    """

    def __init__(self, size: Size, padding: Size = 0, fill: float = 0.0) -> None:
        self.size = size_pair("size", size, 1)
        self.padding = size_pair("padding", padding, 0)
        self.fill = finite("fill", fill)

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        # the middle of the padded image is that of the image, so only a window beyond the image needs the padding
        if rng is None and self.size[0] <= x.shape[1] and self.size[1] <= x.shape[2]:
            return _centre(x, self.size)
        padded = _padded(x, self.padding, self.fill)
        if rng is None:
            return _centre(padded, self.size)
        count, height, width, channels = padded.shape
        h, w = self.size
        top = rng.integers(0, height - h + 1, (count,))
        left = rng.integers(0, width - w + 1, (count,))
        rows = padded.reshape(count, height, width * channels)  # a row of a window is then one stretch of memory
        windows = np.lib.stride_tricks.sliding_window_view(rows, (h, w * channels), axis=(1, 2))
        return windows[np.arange(count), top, left * channels].reshape(count, h, w, channels)

    def out_shape(self, in_shape: Shape) -> Shape:
        height, width, channels = image_shape(self, in_shape)
        padded = height + 2 * self.padding[0], width + 2 * self.padding[1], channels
        _refuse_larger(self, self.size, padded, "use more padding or a smaller size")
        return *self.size, channels


class RandomHorizontalFlip(Transform):
    """Mirrors left and right, each example with probability `p`. In evaluation: nothing.

    Shape: (H, W, C) -> same.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p must be a probability, got {p}")
        self.p = p

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        if rng is None:
            return x
        count, height, width, channels = x.shape
        flipped = np.flatnonzero(rng.keep_mask((count,), self.p))
        mirror = np.arange(width * channels).reshape(width, channels)[::-1].reshape(-1)
        y = x.copy(order="C")
        rows = y.reshape(count, height, width * channels)
        rows[flipped] = rows[flipped].take(mirror, axis=2)
        return y

    def out_shape(self, in_shape: Shape) -> Shape:
        return image_shape(self, in_shape)


def _padded(x: Array, padding: tuple[int, int], fill: float) -> Array:
    if padding == (0, 0):
        return x
    if x.dtype == np.uint8 and fill not in range(256):
        raise UsageError(f"fill {fill} does not fit uint8 pixels", "give a whole number from 0 to 255")
    vertical, horizontal = padding
    count, height, width, channels = x.shape
    y = np.full((count, height + 2 * vertical, width + 2 * horizontal, channels), fill, dtype=x.dtype)
    y[:, vertical : vertical + height, horizontal : horizontal + width] = x
    return y


def _centre(x: Array, size: tuple[int, int]) -> Array:
    top, left = ((have - want) // 2 for have, want in zip(x.shape[1:3], size, strict=True))
    return x[:, top : top + size[0], left : left + size[1]]


def image_shape(transform: Transform, in_shape: Shape) -> tuple[int, int, int]:
    """(H, W, C). Raises ShapeError for what is no image."""
    if len(in_shape) != 3:
        raise ShapeError(f"{type(transform).__name__} takes images of shape (H, W, C), got {in_shape}")
    height, width, channels = in_shape
    return height, width, channels


def _refuse_larger(transform: Transform, size: tuple[int, int], image: tuple[int, int, int], hint: str) -> None:
    if size[0] > image[0] or size[1] > image[1]:
        what = f"{type(transform).__name__} of size {size[0]}x{size[1]}"
        raise ShapeError(f"{what} does not fit into an image of {image[0]}x{image[1]}", hint)


def size_pair(name: str, value: Size, least: int) -> tuple[int, int]:
    """[height, width] of an argument. Raises ValueError, naming it."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in pair):
        raise ValueError(f"{name} must be a whole number of at least {least}, or two [height, width], got {value!r}")
    return pair


def finite(name: str, value: float) -> float:
    """The number. Raises ValueError, naming the argument, for NaN and infinity."""
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}")
    return value
