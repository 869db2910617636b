"""Pooling of sequences: an image of one row."""

from __future__ import annotations

from layernet.backend import Array, Shape
from layernet.backend.window import Window
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.param import Const
from layernet.errors import ShapeError
from layernet.layers.pool import Ties, maximum, maximum_backward, one_of_ties
from layernet.layers.spatial import out_length


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
        self.window = _window(kernel_size, stride, padding, dilation)
        self.ceil_mode = ceil_mode
        self.ties = one_of_ties(ties)

    def build(self, in_shape: Shape) -> Shape:
        self.window, places = _place("MaxPool1d", self.window, self.ceil_mode, in_shape)
        if min(self.window.counts((1, in_shape[0]))[1]) < 1:
            raise ShapeError(
                f"some windows would see nothing but padding in a sequence of {in_shape[0]}",
                "use less dilation or less padding",
            )
        return places, in_shape[1]

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
        self.window = _window(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def build(self, in_shape: Shape) -> Shape:
        border = self.window.padding if self.count_include_pad else ((0, 0), (0, 0))
        self.window, places = _place("AvgPool1d", self.window, self.ceil_mode, in_shape)
        _, counts = self.window.counts((1, in_shape[0]), border)
        self.divisor = Const(lambda xp, dtype: xp.asarray([[[n] for n in counts]], dtype=dtype))
        return places, in_shape[1]

    def forward(self, x: Array, ctx: Context) -> Array:
        y, res = ctx.ops.avg_pool2d(x[:, None], self.window, self.divisor.data)
        ctx.save(res)
        return y[:, 0]

    def backward(self, dy: Array, ctx: Context) -> Array | None:
        (res,) = ctx.saved
        return ctx.ops.avg_pool2d_backward(dy[:, None], res)[:, 0] if ctx.needs_input_grad else None


def _window(kernel_size: int, stride: int | None, padding: int, dilation: int = 1) -> Window:
    """The window of a pooling's arguments, in an image of one row. Raises ValueError for those that make none."""
    step = kernel_size if stride is None else stride
    numbers = {"kernel_size": kernel_size, "stride": step, "dilation": dilation, "padding": padding}
    for name, value in numbers.items():
        minimum = 0 if name == "padding" else 1
        if not isinstance(value, int) or value < minimum:
            raise ValueError(f"{name} must be a whole number of at least {minimum}, got {value!r}")
    window = Window((1, kernel_size), (1, step), ((0, 0), (padding, padding)), (1, dilation))
    if 2 * padding > window.extent[1]:
        raise ValueError(f"padding must be at most half of the kernel, got padding {padding}, kernel {kernel_size}")
    return window


def _place(kind: str, window: Window, ceil_mode: bool, in_shape: Shape) -> tuple[Window, int]:
    """The window for sequences of this shape (T, C), and how many places it takes. Raises ShapeError for others."""
    if len(in_shape) != 2:
        raise ShapeError(
            f"{kind} needs a sequence (T, C), got an input of shape {in_shape}",
            f"for images there is {kind.replace('1d', '2d')}" if len(in_shape) == 3 else "time comes before channels",
        )
    if ceil_mode:
        window = window.covering((1, in_shape[0]))
    return window, out_length(window, in_shape[0])
