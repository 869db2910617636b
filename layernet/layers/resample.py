"""Layers that make every pixel of a new image from a few of the old: enlarging, shrinking, blurring, colour spaces.

Most work on rows and columns one after the other: y = rows x columns^T in every channel, with a matrix for each.
"""

from __future__ import annotations

import math
from typing import Literal

from layernet.backend import Array, Shape
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Const
from layernet.errors import ShapeError
from layernet.layers.spatial import Size2d, image_size, pair

Matrix = list[list[float]]
"""(pixels out, pixels in) along one axis."""

Scale2d = float | tuple[float, float]
"""One number for both axes, or (rows, columns)."""


_LAB_KNEE = (6 / 29) ** 3
_LAB_SLOPE = 1 / (3 * (6 / 29) ** 2)


class _Resample(Layer):
    """What these layers share: the two matrices, made by `build`."""

    def _matrices(self, rows: Matrix, columns: Matrix, in_shape: Shape) -> Shape:
        self.rows = Const(lambda xp, dtype: xp.asarray(rows, dtype=dtype))
        self.columns = Const(lambda xp, dtype: xp.asarray(columns, dtype=dtype))
        return len(rows), len(columns), in_shape[2]

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.resample2d(x, self.rows.data, self.columns.data)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.resample2d_backward(dy, res) if ctx.needs_input_grad else None


class Upsample(_Resample):
    """The image in another size, larger or smaller, as torch.nn.Upsample makes it.

    `size` is the new size, or `scale_factor` times the old one, rounded down; a number or [rows, columns]. With r the
    old size over the new (1 / scale_factor where that is given), pixel i of the new image is

    - `mode` "nearest": the old pixel floor(i r);
    - "bilinear": interpolated between the two old pixels, along each axis, around (i + 1/2) r - 1/2, the outermost
      ones repeated beyond the edge. With `align_corners` around i (H - 1) / (H' - 1), so that corners stay corners.

    Nothing is averaged away: blur before shrinking. Shape: (N, H, W, C) -> (N, H', W', C). Raises ShapeError when
    nothing is left.
    """

    def __init__(
        self,
        size: Size2d | None = None,
        scale_factor: Scale2d | None = None,
        mode: Literal["nearest", "bilinear"] = "nearest",
        align_corners: bool = False,
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ValueError(f"give either size or scale_factor, got size {size!r}, scale_factor {scale_factor!r}")
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"mode must be nearest or bilinear, got {mode!r}")
        if align_corners and mode == "nearest":
            raise ValueError("align_corners is for mode bilinear, got mode nearest")
        self.size = None if size is None else pair("size", size)
        self.factors = None if scale_factor is None else _factors(scale_factor)
        self.mode, self.align_corners = mode, align_corners

    def build(self, in_shape: Shape) -> Shape:
        old = image_size("Upsample", in_shape)
        if self.factors is None:
            new = self.size or old
            ratios = old[0] / new[0], old[1] / new[1]
        else:
            new = math.floor(old[0] * self.factors[0]), math.floor(old[1] * self.factors[1])
            ratios = 1 / self.factors[0], 1 / self.factors[1]
        if min(new) < 1:
            raise ShapeError(f"nothing is left of an image of {old[0]} x {old[1]}", "use a larger scale_factor")
        axes = list(zip(old, new, ratios, strict=True))
        if self.mode == "bilinear":
            return self._matrices(self._matrix(*axes[0]), self._matrix(*axes[1]), in_shape)
        rows, columns = (self._sources(*axis) for axis in axes)
        self.rows = Const(lambda xp, dtype: xp.asarray(rows))
        self.columns = Const(lambda xp, dtype: xp.asarray(columns))
        return len(rows), len(columns), in_shape[2]

    def forward(self, x: Array, ctx: Context) -> Array:
        if self.mode == "bilinear":
            return super().forward(x, ctx)
        y, res = ctx.ops.sample2d(x, self.rows.data, self.columns.data)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        if self.mode == "bilinear":
            return super().backward(dy, ctx)
        (res,) = ctx.saved
        return ctx.ops.sample2d_backward(dy, res) if ctx.needs_input_grad else None

    def _sources(self, old: int, new: int, ratio: float) -> list[int]:
        """The old pixel that each new one is."""
        if self.factors is None:
            return [i * old // new for i in range(new)]
        return [min(math.floor(i * ratio), old - 1) for i in range(new)]

    def _matrix(self, old: int, new: int, ratio: float) -> Matrix:
        if self.align_corners:
            return _interpolation([i * (old - 1) / max(new - 1, 1) for i in range(new)], old)
        return _interpolation([(i + 0.5) * ratio - 0.5 for i in range(new)], old)


class Resize(_Resample):
    """The image at 1 / `scale` of its size, bilinearly: cuda-convnet's `resize`, to the pixel.

    Pixel i is interpolated around (i + 1/2) scale - 1/2, but nowhere beyond pixel H - 1.01: cuda-convnet's own rule,
    where Upsample goes to H - 1. `scale` is from 1/2 (twice the pixels along each axis) to 2 (half of them).
    Shape: (N, H, W, C) -> (N, floor(H / scale), floor(W / scale), C). Raises ShapeError when nothing is left.
    """

    def __init__(self, scale: float) -> None:
        if not 0.5 <= scale <= 2:
            raise ValueError(f"scale must be from 0.5 to 2, got {scale}")
        self.scale = scale

    def build(self, in_shape: Shape) -> Shape:
        rows, columns = (self._matrix(n) for n in image_size("Resize", in_shape))
        if not (rows and columns):
            raise ShapeError(
                f"nothing is left of an image of {in_shape[0]} x {in_shape[1]} shrunk by {self.scale}",
                "use a smaller scale",
            )
        return self._matrices(rows, columns, in_shape)

    def _matrix(self, size: int) -> Matrix:
        new = math.floor(size / self.scale)
        return _interpolation([min((i + 0.5) * self.scale - 0.5, size - 1.01) for i in range(new)], size)


class GaussianBlur(_Resample):
    """y = the image convolved with a Gaussian, along rows and columns; zeros beyond the edge.

    The weights are exp(-d^2 / (2 sigma^2)) at distance d, over `kernel_size` pixels (odd), and sum to 1. `sigma` is in
    pixels. cuda-convnet's `blur`, whose filterSize and stdev these are; torchvision reflects the image at the edge
    instead: ReflectionPad2d before it, and Crop after it, do the same. Shape: (N, H, W, C) -> same.
    """

    def __init__(self, kernel_size: int, sigma: float) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, got {kernel_size}")
        if not sigma > 0:
            raise ValueError(f"sigma must be more than 0, got {sigma}")
        radius = kernel_size // 2
        bell = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(radius + 1)]
        self.weights = [w / (2 * sum(bell) - bell[0]) for w in bell]

    def build(self, in_shape: Shape) -> Shape:
        rows, columns = (self._matrix(n) for n in image_size("GaussianBlur", in_shape))
        return self._matrices(rows, columns, in_shape)

    def _matrix(self, size: int) -> Matrix:
        weights = self.weights + [0.0] * size
        return [[weights[abs(i - j)] for j in range(size)] for i in range(size)]


class RGBToYUV(Layer):
    """(Y, U, V) of every pixel (R, G, B), a matrix for the primaries of ITU-R BT.709: cuda-convnet's `rgb2yuv`.

    Y = 0.2126 R + 0.7152 G + 0.0722 B, U = -0.09991 R - 0.33609 G + 0.436 B, V = 0.615 R - 0.55861 G - 0.05639 B.
    Shape: (N, H, W, 3) -> same. Raises ShapeError for another number of channels.
    """

    def build(self, in_shape: Shape) -> Shape:
        _coloured("RGBToYUV", in_shape)
        matrix = [[0.2126, 0.7152, 0.0722], [-0.09991, -0.33609, 0.436], [0.615, -0.55861, -0.05639]]
        self.matrix = Const(lambda xp, dtype: xp.asarray(matrix, dtype=dtype))
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        return x @ self.matrix.data.T

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy @ self.matrix.data


class RGBToLab(Layer):
    """CIE L*a*b* of every pixel (R, G, B), which is taken for linear, in 0..1: cuda-convnet's `rgb2lab`.

    X = 0.49 R + 0.31 G + 0.2 B, Y = 0.17697 R + 0.8124 G + 0.01063 B, Z = 0.01 G + 0.99 B, 1 each for white;
    L = 116 f(Y) - 16, from 0 to 100, less 50 with `center`; a = 500 (f(X) - f(Y)); b = 200 (f(Y) - f(Z)), where
    f(t) = t^(1/3) above (6/29)^3, and the line t / (3 (6/29)^2) + 4/29 below.
    Shape: (N, H, W, 3) -> same. Raises ShapeError for another number of channels.
    """

    def __init__(self, center: bool = False) -> None:
        self.center = center

    def build(self, in_shape: Shape) -> Shape:
        _coloured("RGBToLab", in_shape)
        xyz = [[0.49, 0.31, 0.2], [0.17697, 0.8124, 0.01063], [0.0, 0.01, 0.99]]
        lab = [[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]]
        offset = [-66.0 if self.center else -16.0, 0.0, 0.0]
        self.xyz = Const(lambda xp, dtype: xp.asarray(xyz, dtype=dtype))
        self.lab = Const(lambda xp, dtype: xp.asarray(lab, dtype=dtype))
        self.offset = Const(lambda xp, dtype: xp.asarray(offset, dtype=dtype))
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        t = x @ self.xyz.data.T
        root = ctx.xp.maximum(t, _LAB_KNEE) ** (1 / 3)
        f = ctx.xp.where(t > _LAB_KNEE, root, t * _LAB_SLOPE + 4 / 29)
        ctx.save(root)
        return f @ self.lab.data.T + self.offset.data

    def backward(self, dy: Array, ctx: Context) -> Array:
        (root,) = ctx.saved  # at the knee the root's slope is the line's
        return ((dy @ self.lab.data) / (3 * root * root)) @ self.xyz.data


def _coloured(name: str, in_shape: Shape) -> None:
    image_size(name, in_shape)
    if in_shape[2] != 3:
        raise ShapeError(
            f"{name} needs 3 channels, got {in_shape[2]} in an input of shape {in_shape}",
            "put it first, where the image still has its colours",
        )


def _interpolation(sources: list[float], size: int) -> Matrix:
    """The matrix that reads an axis at these places: between two pixels linearly, beyond the edge the outermost."""
    matrix = []
    for source in sources:
        place = min(max(source, 0.0), size - 1.0)
        before = math.floor(place)
        row = [0.0] * size
        row[before] = 1 - (place - before)
        if place > before:
            row[before + 1] = place - before
        matrix.append(row)
    return matrix


def _factors(scale_factor: Scale2d) -> tuple[float, float]:
    """The argument as (rows, columns). Raises ValueError when it is anything else, or not above 0."""
    numbers = tuple(scale_factor) if isinstance(scale_factor, tuple | list) else (scale_factor, scale_factor)
    if len(numbers) != 2 or not all(isinstance(n, int | float) and 0 < n < math.inf for n in numbers):
        raise ValueError(f"scale_factor must be a number above 0 or two of them [rows, columns], got {scale_factor!r}")
    return numbers[0], numbers[1]
