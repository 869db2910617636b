"""Transforms that make other training images of images: windows scaled, holes, colours. Evaluation sees none of it.

The transforms of colour compute in float32 and give back what they were given, uint8 rounded to the nearest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.random import Stream
from layernet.data.transforms import Size, Transform, finite, image_shape, size_pair
from layernet.errors import CheckpointError, ContractError, DataError, ShapeError

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_ATTEMPTS = 10
_CHUNK = 64  # images interpolated at a time: their float copies then stay in the cache

Range = float | list[float]
"""One number, or [least, most]."""


class Cutout(Transform):
    """Puts `fill` into `holes` squares of `size` pixels, each image's own (DeVries and Taylor 2017, arXiv:1708.04552).

    A hole is cut where it reaches beyond the image, as in the paper: its rows are c - floor(size / 2) and the size - 1
    after, for a row c drawn evenly. `size`: one number, or [height, width]. `fill`: in the units of what comes in,
    0..255 for uint8 pixels; after Normalize 0 is the mean. In evaluation: nothing. Shape: (H, W, C) -> same.
    """

    def __init__(self, size: Size, holes: int = 1, fill: float = 0.0) -> None:
        self.size = size_pair("size", size, 1)
        if isinstance(holes, bool) or holes < 1:
            raise ValueError(f"holes must be at least 1, got {holes}")
        self.holes = holes
        self.fill = finite("fill", fill)

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        if rng is None:
            return x
        if x.dtype == np.uint8 and self.fill not in range(256):
            raise DataError(f"fill {self.fill} does not fit uint8 pixels", "give a whole number from 0 to 255")
        hidden = np.zeros(x.shape[:3], dtype=bool)
        for _ in range(self.holes):
            inside = []
            for length, extent in zip(x.shape[1:3], self.size, strict=True):
                start = rng.integers(0, length, (len(x), 1)) - extent // 2
                place = np.arange(length)
                inside.append((place >= start) & (place < start + extent))
            hidden |= inside[0][:, :, np.newaxis] & inside[1][:, np.newaxis, :]
        return np.where(hidden[..., np.newaxis], x.dtype.type(self.fill), x)

    def out_shape(self, in_shape: Shape) -> Shape:
        return image_shape(self, in_shape)


class RandomResizedCrop(Transform):
    """A window of random area and proportions, scaled to `size`, bilinear (Szegedy et al. 2014, arXiv:1409.4842).

    The window's area is a share of the image's drawn evenly from `scale`, its width / height from exp(evenly between
    the logarithms of `ratio`); of ten tries the first that fits is taken, or else the largest middle window whose
    proportions are within `ratio`. As torchvision's, with `antialias=False`: where a window is much larger than `size`,
    pixels between are not seen. In evaluation the whole image, its middle cut to the proportions of `size`.
    Pixels' centres are at halves. uint8 stays uint8, rounded.

    `size`: one number for a square, or [height, width]. Shape: (H, W, C) -> (h, w, C).
    """

    def __init__(
        self, size: Size, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (0.75, 4 / 3)
    ) -> None:
        self.size = size_pair("size", size, 1)
        for name, pair, most in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
            if len(pair) != 2 or not 0.0 < pair[0] <= pair[1] <= most or not math.isfinite(pair[1]):
                limit = " at most 1" if most == 1.0 else ""
                raise ValueError(f"{name} must be [least, most], positive and{limit} in order, got {list(pair)}")
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        count, height, width, _ = x.shape
        if rng is None:
            share = min(height / self.size[0], width / self.size[1])
            h, w = share * self.size[0], share * self.size[1]
            box = np.array([(height - h) / 2, (width - w) / 2, h, w])
            return _resampled(x, np.broadcast_to(box, (count, 4)), self.size)
        return _resampled(x, self.windows(count, height, width, rng), self.size)

    def windows(self, count: int, height: int, width: int, rng: Stream) -> Array:
        """(top, left, height, width) of `count` random windows: (count, 4), whole numbers as float64."""
        tries = (count, _ATTEMPTS)
        area = height * width * rng.uniform(tries, *self.scale).astype(np.float64)
        low, high = (math.log(ratio) for ratio in self.ratio)
        ratio = np.exp(low + (high - low) * rng.uniform(tries).astype(np.float64))
        h, w = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        fits = (h >= 1) & (h <= height) & (w >= 1) & (w <= width)
        first = np.arange(count), fits.argmax(axis=1)
        found = fits[first]
        proportion = min(max(width / height, self.ratio[0]), self.ratio[1])
        whole = max(1, min(height, round(width / proportion))), max(1, min(width, round(height * proportion)))
        h, w = np.where(found, h[first], whole[0]), np.where(found, w[first], whole[1])
        places = rng.uniform((2, count)).astype(np.float64)
        top, left = np.floor(places[0] * (height - h + 1)), np.floor(places[1] * (width - w + 1))
        top = np.where(found, top, (height - whole[0]) // 2)
        left = np.where(found, left, (width - whole[1]) // 2)
        return np.stack([top, left, h, w], axis=1)

    def out_shape(self, in_shape: Shape) -> Shape:
        return *self.size, image_shape(self, in_shape)[2]


class ColorJitter(Transform):
    """Changes brightness, contrast, saturation and hue, each example by its own amounts and in its own order.

    With a factor f drawn evenly from [max(0, 1 - a), 1 + a] for a number a, or from [least, most]:
    `brightness` y = f x; `contrast` y = f x + (1 - f) m, m the mean of the image's grey; `saturation`
    y = f x + (1 - f) grey, grey = 0.299 R + 0.587 G + 0.114 B; `hue` turns the hue by a share of the circle drawn
    evenly from [-a, a], a at most 0.5. Results are cut to 0..1. As torchvision's, but that nothing is rounded between
    the steps. In evaluation: nothing.

    Takes uint8 pixels, or floats 0..1: put it before Normalize. Shape: (H, W, 3) -> same.
    """

    def __init__(
        self, brightness: Range = 0.0, contrast: Range = 0.0, saturation: Range = 0.0, hue: Range = 0.0
    ) -> None:
        self.factors = {
            "brightness": _range("brightness", brightness),
            "contrast": _range("contrast", contrast),
            "saturation": _range("saturation", saturation),
            "hue": _range("hue", hue, centre=0.0, least=-0.5, most=0.5),
        }

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        if rng is None:
            return x
        count = len(x)
        order = rng.uniform((count, 4)).argsort(axis=1, kind="stable")
        amounts = [rng.uniform((count,), low, high) for low, high in self.factors.values()]
        steps = (_brighter, _contrasted, _saturated, _turned)
        y = _units(x)
        for place in range(4):
            for step, function in enumerate(steps):
                mine = np.flatnonzero(order[:, place] == step)
                if len(mine) and list(self.factors.values())[step] != (_CENTRES[step], _CENTRES[step]):
                    factor = amounts[step][mine].reshape(-1, 1, 1, 1)
                    y[mine] = np.clip(function(y[mine], factor), 0.0, 1.0)
        return _like(y, x)

    def out_shape(self, in_shape: Shape) -> Shape:
        return _rgb(self, in_shape)


_CENTRES = (1.0, 1.0, 1.0, 0.0)


class ColorNoise(Transform):
    """y = x + sum_i a_i sqrt(l_i) v_i, a_i normal of standard deviation `std`: noise along the colours' main axes.

    v_i and l_i are the principal axes and variances of the training set's pixels, all images together, measured once;
    an image's a_i, drawn anew each time, are the same for all its pixels ("ImageNet classification with deep
    convolutional neural networks", Krizhevsky et al. 2012, where std is 0.1). `rescale` divides by 1 + std, as
    cuda-convnet2's `--color-noise` does. The sum is not cut to 0..1, so what leaves is float32, in units of 0..1 where
    it was uint8; put it before Normalize. In evaluation x alone (also rescaled, not changed by noise).

    Shape: (H, W, C) -> same. Raises ContractError in use before it has measured.
    """

    def __init__(self, std: float = 0.1, rescale: bool = False) -> None:
        if not 0.0 <= std < math.inf:
            raise ValueError(f"std must be finite and not negative, got {std}")
        self.std = std
        self.rescale = rescale
        self._axes: Array | None = None

    @property
    def needs_fit(self) -> bool:  # type: ignore[override]
        """Whether the axes are still to be measured."""
        return self._axes is None

    def __call__(self, x: Array, rng: Stream | None = None) -> Array:
        if self._axes is None:
            raise ContractError(f"{self!r} has not measured the training data", "call fit, or fit_transforms")
        channels = len(self._axes)
        if x.shape[-1] != channels:
            raise ShapeError(f"ColorNoise measured {channels} channels, got examples of shape {x.shape[1:]}")
        y = _units(x)
        if rng is not None:
            along = rng.normal((len(x), channels, 1), std=self.std)
            # no matrix product, as in _grey
            y += (along * self._axes.astype(np.float32)).sum(axis=1)[:, np.newaxis, np.newaxis]
        if self.rescale:
            y /= np.float32(1.0 + self.std)
        return y

    def out_shape(self, in_shape: Shape) -> Shape:
        shape = image_shape(self, in_shape)
        if self._axes is not None and shape[2] != len(self._axes):
            raise ShapeError(f"ColorNoise measured {len(self._axes)} channels, got examples of shape {in_shape}")
        return shape

    def fit(self, batches: Iterable[Array]) -> None:
        count, total, products, origin = 0, np.zeros(1), np.zeros(1), np.zeros(1)
        for x in batches:
            pixels = x.reshape(-1, x.shape[-1]) / (255.0 if x.dtype == np.uint8 else 1.0)
            if not count and len(pixels):
                origin = pixels.mean(axis=0, dtype=np.float64)  # close to the mean: then the difference cancels little
            centred = pixels - origin
            count += len(centred)
            total, products = total + centred.sum(axis=0), products + centred.T @ centred
        if not count:
            raise DataError("there is no training data to measure")
        mean = total / count
        covariance = products / count - np.outer(mean, mean)
        if not np.isfinite(covariance).all():
            raise DataError("ColorNoise cannot measure the training data: it holds NaN or infinite values")
        variances, vectors = np.linalg.eigh(covariance)
        vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(mean))] < 0, -1.0, 1.0)
        self._axes = (vectors * np.sqrt(np.maximum(variances, 0.0))).T

    def state(self) -> dict[str, Array]:
        return {} if self._axes is None else {"axes": self._axes}

    def load_state(self, state: Mapping[str, Array]) -> None:
        axes = np.array(state.get("axes", ()), dtype=np.float64)
        if set(state) != {"axes"} or axes.ndim != 2 or len(axes) != axes.shape[-1] or not np.isfinite(axes).all():
            found = ", ".join(f"{name} {np.shape(value)}" for name, value in state.items()) or "nothing"
            raise CheckpointError(f"{self!r} stores axes (C, C); found {found}")
        self._axes = axes


def _range(
    name: str, value: Range, centre: float = 1.0, least: float = 0.0, most: float = math.inf
) -> tuple[float, float]:
    low, high = value if isinstance(value, list | tuple) and len(value) == 2 else (math.nan, math.nan)
    if not isinstance(value, list | tuple) and value >= 0:
        low, high = max(least, centre - value), centre + value
    if not least <= low <= high <= most or not math.isfinite(high):
        limits = f"in {least}..{most}" if math.isfinite(most) else "not negative"
        raise ValueError(f"{name} must be a number that is not negative, or [least, most] {limits}, got {value!r}")
    return low, high


def _units(x: Array) -> Array:
    """A new float32 array, pixels as 0..1."""
    return x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)


def _like(y: Array, x: Array) -> Array:
    return np.rint(y * 255).astype(np.uint8) if x.dtype == np.uint8 else y.astype(x.dtype)


def _rgb(transform: Transform, in_shape: Shape) -> Shape:
    shape = image_shape(transform, in_shape)
    if shape[2] != 3:
        raise ShapeError(f"{type(transform).__name__} takes images of 3 channels, got {in_shape}")
    return shape


def _grey(x: Array) -> Array:
    # no matrix product: what a BLAS rounds hangs on the layout, the threads and the processor
    grey = x[..., 0:1] * _GREY[0] + x[..., 1:2] * _GREY[1] + x[..., 2:3] * _GREY[2]
    return np.ascontiguousarray(grey)  # so do the sums of a mean hang on the layout


def _brighter(x: Array, factor: Array) -> Array:
    return x * factor


def _contrasted(x: Array, factor: Array) -> Array:
    return factor * x + (1 - factor) * _grey(x).mean(axis=(1, 2, 3), keepdims=True)


def _saturated(x: Array, factor: Array) -> Array:
    return factor * x + (1 - factor) * _grey(x)


def _turned(x: Array, turn: Array) -> Array:
    """The hue turned by a share of the circle, through HSV: hue is where between the six corners a colour lies."""
    most, least = x.max(axis=3, keepdims=True), x.min(axis=3, keepdims=True)
    chroma = most - least
    red, green, blue = (x[..., i : i + 1] for i in range(3))
    safe = np.where(chroma == 0, np.float32(1), chroma)
    sixth = np.where(
        most == red, (green - blue) / safe, np.where(most == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    sixth = sixth + 6 * turn
    # a channel is at the most within one sixth of its own corner, at the least beyond two, and linear between
    distance = np.abs((sixth - np.array([0, 2, 4], dtype=np.float32) + 3) % 6 - 3)
    return (least + chroma * np.clip(2 - distance, 0.0, 1.0)).astype(np.float32)


def _resampled(x: Array, boxes: Array, size: tuple[int, int]) -> Array:
    """Each image's box (top, left, height, width) scaled to `size`; what lies beyond the box's edge is its edge."""
    rows = _weights(boxes[:, 0], boxes[:, 2], size[0])
    columns = _weights(boxes[:, 1], boxes[:, 3], size[1])
    y = np.empty((len(x), *size, x.shape[3]), dtype=x.dtype)
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        (low, high, t), (left, right, s) = ([a[part] for a in axis] for axis in (rows, columns))
        image = np.arange(len(x))[part, np.newaxis]
        kind = np.result_type(x.dtype, np.float32)
        t, s = t[:, :, np.newaxis, np.newaxis].astype(kind), s[:, np.newaxis, :, np.newaxis].astype(kind)
        between = x[image, low] * (1 - t) + x[image, high] * t
        image = np.arange(len(between))[:, np.newaxis, np.newaxis]
        row = np.arange(size[0])[:, np.newaxis]
        left, right = left[:, np.newaxis], right[:, np.newaxis]
        value = between[image, row, left] * (1 - s) + between[image, row, right] * s
        y[part] = np.rint(value) if x.dtype.kind in "iu" else value
    return y


def _weights(start: Array, length: Array, size: int) -> tuple[Array, Array, Array]:
    """For each of `size` pixels: (the pixel before, the one after, the share of the one after), each (N, size).

    The centre of pixel i lies at start + (i + 1/2) length / size - 1/2, among pixels first .. last of the box.
    """
    place = start[:, np.newaxis] + (np.arange(size) + 0.5) * (length[:, np.newaxis] / size) - 0.5
    first, last = np.floor(start)[:, np.newaxis], np.ceil(start + length)[:, np.newaxis] - 1
    place = np.clip(place, first, last)
    low = np.floor(place)
    return low.astype(np.int64), np.minimum(low + 1, last).astype(np.int64), place - low
