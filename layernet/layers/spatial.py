"""What the layers that slide a window over an image have in common: their arguments and the check of their input."""

from __future__ import annotations

from layernet.backend import Shape
from layernet.backend.window import Pair, Window
from layernet.errors import ShapeError

Size2d = int | tuple[int, int]
"""One number for both axes, or (rows, columns)."""


def pair(name: str, value: Size2d, minimum: int | None = 1) -> Pair:
    """The argument as (rows, columns). Raises ValueError when it is anything else or below `minimum`."""
    numbers = (value, value) if isinstance(value, int) else value
    if not isinstance(numbers, tuple | list) or len(numbers) != 2 or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"{name} must be a whole number or two of them [rows, columns], got {value!r}")
    if minimum is not None and min(numbers) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    return numbers[0], numbers[1]


def image_size(kind: str, in_shape: Shape) -> Pair:
    """(H, W) of an image (H, W, C). Raises ShapeError for any other shape."""
    if len(in_shape) != 3:
        cure = (
            f"give the image its axis of channels: {[*in_shape, 1]}"
            if len(in_shape) == 2
            else "put it before Flatten, or a Reshape to (H, W, C) before it"
        )
        raise ShapeError(f"{kind} needs an image (H, W, C), got an input of shape {in_shape}", cure)
    return in_shape[0], in_shape[1]


def out_size(window: Window, size: Pair, in_shape: Shape) -> Pair:
    """The size of what the window makes of the image. Raises ShapeError when it does not fit in."""
    places = window.out_size(size)
    if min(places) < 1:
        padded = tuple(n + sum(padding) for n, padding in zip(size, window.padding, strict=True))
        grown = "" if padded == size else f", {_by(padded)} with its padding"
        wide = "" if window.dilation == (1, 1) else f", {_by(window.extent)} with its dilation,"
        raise ShapeError(
            f"a kernel of {_by(window.kernel)}{wide} does not fit into the image of {_by(size)}{grown}",
            "use a smaller kernel or more padding, or fewer layers before it that shrink the image"
            + ("; images are (H, W, C), channels last" if in_shape[0] in (1, 3) else ""),
        )
    return places


def out_length(window: Window, length: int) -> int:
    """The length of what a window of one row makes of the sequence. Raises ShapeError when it does not fit in."""
    _, places = window.out_size((1, length))
    if places < 1:
        padded = length + sum(window.padding[1])
        grown = "" if padded == length else f", {padded} with its padding"
        raise ShapeError(
            f"a kernel that reaches over {window.extent[1]} steps does not fit into the sequence of {length}{grown}",
            "use a smaller kernel, less dilation or more padding",
        )
    return places


def _by(numbers: Pair | tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))
