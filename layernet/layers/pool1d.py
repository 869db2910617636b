"""Pooling of sequences: an image of one row."""

from __future__ import annotations

from layernet.backend import Array, Shape
from layernet.backend.window import Pair
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Const
from layernet.errors import ShapeError
from layernet.layers.pool import Ties, maximum, maximum_backward, one_of_ties, place, place_without_empty, window_of


class MaxPool1d(Layer):
    """y = the maximum of every window of a sequence, each channel by itself.

    Shape: (N, T, C) -> (N, T', C), T' = floor((T + 2p - d (kernel_size - 1) - 1) / s) + 1. `stride` s (default:
    kernel_size), `padding` p and `dilation` d are in steps; `ceil_mode` and `ties` are those of MaxPool2d. Raises
    ShapeError when the window does not fit.
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        dilation: int = 1,
        ceil_mode: bool = False,
        ties: Ties = "first",
    ) -> None:
        self.window = window_of(
            _in_a_row("kernel_size", kernel_size),
            None if stride is None else _in_a_row("stride", stride),
            _in_a_row("padding", padding, across=0, minimum=0),
            _in_a_row("dilation", dilation),
        )
        self.ceil_mode = ceil_mode
        self.ties = one_of_ties(ties)

    def build(self, in_shape: Shape) -> Shape:
        image = _row("MaxPool1d", in_shape)
        self.window, out_shape = place_without_empty("MaxPool1d", self.window, self.ceil_mode, image)
        return out_shape[1:]

    def forward(self, x: Array, ctx: Context) -> Array:
        return maximum(x[:, None], self.window, self.ties, ctx)[:, 0]

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        return maximum_backward(dy[:, None], self.ties, ctx)[:, 0] if ctx.needs_input_grad else None


class AvgPool1d(Layer):
    """y = the mean of every window of a sequence, each channel by itself.

    Shape: (N, T, C) -> (N, T', C), T' = floor((T + 2p - kernel_size) / s) + 1. `stride` s (default: kernel_size) and
    `padding` p are in steps; `ceil_mode` and `count_include_pad` are those of AvgPool2d. Raises ShapeError when the
    window does not fit.
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.window = window_of(
            _in_a_row("kernel_size", kernel_size),
            None if stride is None else _in_a_row("stride", stride),
            _in_a_row("padding", padding, across=0, minimum=0),
        )
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def build(self, in_shape: Shape) -> Shape:
        image = _row("AvgPool1d", in_shape)
        border = self.window.padding if self.count_include_pad else ((0, 0), (0, 0))
        self.window, out_shape = place(self.window, self.ceil_mode, image)
        _, counts = self.window.counts((1, image[1]), border)
        self.divisor = Const(lambda xp, dtype: xp.asarray([[[n] for n in counts]], dtype=dtype))
        return out_shape[1:]

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.avg_pool2d(x[:, None], self.window, self.divisor.data)
        ctx.save(res)
        return y[:, 0]

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.avg_pool2d_backward(dy[:, None], res)[:, 0] if ctx.needs_input_grad else None


def _in_a_row(name: str, value: int, across: int = 1, minimum: int = 1) -> Pair:
    """The argument for an image of one row. Raises ValueError when it is no number or below `minimum`."""
    if not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    return across, value


def _row(kind: str, in_shape: Shape) -> Shape:
    """The shape of a sequence (T, C) as an image. Raises ShapeError for any other shape."""
    if len(in_shape) != 2:
        raise ShapeError(
            f"{kind} needs a sequence (T, C), got an input of shape {in_shape}",
            f"for images there is {kind.replace('1d', '2d')}" if len(in_shape) == 3 else "time comes before channels",
        )
    return (1, *in_shape)
