"""Normalisation by the neighbours of each number, of the nets before batch norm."""

from __future__ import annotations

import math
from typing import Literal

from layernet.backend import Array, Shape
from layernet.backend.reference.local_norm import Neighbourhood
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Const
from layernet.layers.shape import channels_of
from layernet.layers.spatial import image_size

Region = Literal["across_channels", "within_channel"]


class LocalResponseNorm(Layer):
    """y = x / (k + alpha / n * sum of the squares of the neighbours) ** beta (Krizhevsky et al. 2012).

    The neighbours, by `region` (the words are Caffe's):
    - `across_channels`: channels c - size // 2 to c - size // 2 + size - 1 of the same place, n = size; or with
      `blocked` those of its block of `size` channels, counted from channel 0 on, of which the last may be cut short.
      cuda-convnet's `cmrnorm`, torch.nn.LocalResponseNorm.
    - `within_channel`: a window of size x size pixels, from size // 2 pixels above and to the left on, in the same
      channel, n = size^2. cuda-convnet's `rnorm`.

    What does not exist counts as 0, and n stays. So an even size reaches further back than forward.

    Conventions that differ: torch, Caffe and cuda-convnet divide alpha (there `scale`) by n; the AlexNet paper and
    TensorFlow do not, which is `average` false. k is 1 in torch, Caffe and cuda-convnet 1, `minDiv` in cuda-convnet2
    and 2 in the paper, whose layer is size 5, alpha 1e-4, beta 0.75, k 2, average false.

    Shape: (N, ..., C) -> same; (N, H, W, C) within a channel.
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        region: Region = "across_channels",
        blocked: bool = False,
        average: bool = True,
    ) -> None:
        _check(size, alpha, beta, k)
        if region not in ("across_channels", "within_channel"):
            raise ValueError(f"region must be 'across_channels' or 'within_channel', got {region!r}")
        if blocked and region == "within_channel":
            raise ValueError("blocked is for region 'across_channels', got 'within_channel'")
        self.beta, self.k = beta, k
        self.around = Neighbourhood(size, (-1,) if region == "across_channels" else (1, 2), blocked)
        self.scale = alpha / size ** len(self.around.axes) if average else alpha

    def build(self, in_shape: Shape) -> Shape:
        if self.around.axes == (-1,):
            channels_of(self, in_shape)
        else:
            image_size("LocalResponseNorm within a channel", in_shape)
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.local_response_norm(x, self.around, self.scale, self.beta, self.k)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.local_response_norm_backward(dy, res)


class LocalContrastNorm(Layer):
    """y = x / (k + alpha / size^2 * sum of the squares of the neighbours' e) ** beta, e = x - mean of its neighbours.

    The neighbours are a window of size x size pixels in the same channel, from size // 2 pixels above and to the left
    on, clipped to the image; the mean is over those that exist, the sum is divided by size^2 all the same. x itself is
    divided, not e. cuda-convnet's `cnorm` (alpha is its `scale`, beta its `pow`; k is 1 in version 1, `minDiv` in
    version 2), but with the exact gradient: theirs takes the mean for a constant.

    Shape: (N, H, W, C) -> same.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        _check(size, alpha, beta, k)
        self.beta, self.k = beta, k
        self.around = Neighbourhood(size, (1, 2))
        self.scale = alpha / size**2

    def build(self, in_shape: Shape) -> Shape:
        rows, columns = (self.around.counts(n) for n in image_size("LocalContrastNorm", in_shape))
        areas = [[[r * c] for c in columns] for r in rows]
        self.counts = Const(lambda xp, dtype: xp.asarray(areas, dtype=dtype))
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.local_contrast_norm(x, self.around, self.counts.data, self.scale, self.beta, self.k)
        ctx.save(res)
        return y

    def backward(self, dy: Array, ctx: Context) -> Array:
        (res,) = ctx.saved
        return ctx.ops.local_contrast_norm_backward(dy, res)


def _check(size: int, alpha: float, beta: float, k: float) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and at least 0, got {value}")
    if not 0 < k < math.inf:
        raise ValueError(f"k must be finite and above 0, got {k}")
