"""The geometry of a window that slides over an image: what convolution and pooling have in common. Integers only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from types import EllipsisType
from typing import NamedTuple

Pair = tuple[int, int]
"""One number for the rows and one for the columns."""

PixelIndex = tuple[EllipsisType, slice, slice, slice]
"""An index into (..., H, W, C)."""


class Tap(NamedTuple):
    """One place in the window, and what it touches while the window slides over the image.

    `image[tap.reads]` are the pixels under it and `output[tap.feeds]` the outputs they count for, one for one. Padding
    is left out of both, so a kernel that goes by taps needs no padded copy of the image.
    """

    row: int
    column: int
    reads: PixelIndex
    feeds: PixelIndex


@dataclass(frozen=True)
class Window:
    """A window of kernel[0] x kernel[1] taps, `dilation` pixels apart, that moves by `stride` pixels.

    `padding` is ((top, bottom), (left, right)), in pixels around the image.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    @property
    def extent(self) -> Pair:
        """Pixels from the first to the last tap, both included."""
        return self._extent(0), self._extent(1)

    def out_size(self, size: Pair) -> Pair:
        """How many places the window takes on an image of this size; below 1 where it does not fit."""
        return self._places(0, size[0]), self._places(1, size[1])

    def covering(self, size: Pair) -> Window:
        """The window with padding added at the end, so that a last, partly empty, place is taken too.

        The rule of torch's `ceil_mode`: the last window must still start in the image or in the padding before it.
        """
        (top, bottom), (left, right) = self.padding
        return replace(
            self, padding=((top, bottom + self._missing(0, size[0])), (left, right + self._missing(1, size[1])))
        )

    def rounded_up(self, size: Pair) -> Window:
        """The window with padding added at the end, so that places are counted with the ceiling, not the floor.

        The rule of cuda-convnet's convolution. Where the stride is larger than the window, the last place may see
        nothing but padding.
        """
        (top, bottom), (left, right) = self.padding
        return replace(self, padding=((top, bottom + self._rest(0, size[0])), (left, right + self._rest(1, size[1]))))

    def counts(self, size: Pair, border: tuple[Pair, Pair] = ((0, 0), (0, 0))) -> tuple[list[int], list[int]]:
        """How many of its rows, and columns, lie in the image at each place; a `border` around it counts as image."""
        rows, columns = (
            [
                sum(-border[axis][0] <= pixel < size[axis] + border[axis][1] for pixel in self._pixels(axis, place))
                for place in range(self._places(axis, size[axis]))
            ]
            for axis in (0, 1)
        )
        return rows, columns

    def taps(self, size: Pair) -> tuple[Tap, ...]:
        """All taps that touch an image of this size, in reading order."""
        return _taps(self, size)

    def _extent(self, axis: int) -> int:
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def _places(self, axis: int, size: int) -> int:
        return (size + sum(self.padding[axis]) - self._extent(axis)) // self.stride[axis] + 1

    def _pixels(self, axis: int, place: int) -> range:
        start = place * self.stride[axis] - self.padding[axis][0]
        return range(start, start + self._extent(axis), self.dilation[axis])

    def _rest(self, axis: int, size: int) -> int:
        """Padding at the end that completes the last stride."""
        return (self._extent(axis) - size - sum(self.padding[axis])) % self.stride[axis]

    def _missing(self, axis: int, size: int) -> int:
        """Padding that one more place needs at the end; 0 where there is to be none."""
        before, after = self.padding[axis]
        place = self._places(axis, size)
        start = place * self.stride[axis]
        rest = start + self._extent(axis) - (size + before + after)
        return rest if start < size + before and rest < self.stride[axis] else 0

    def _axis_taps(self, axis: int, size: int) -> Iterator[tuple[int, slice, slice]]:
        """(tap, pixels it reads, places it feeds) along one axis."""
        stride, places = self.stride[axis], self._places(axis, size)
        for tap in range(self.kernel[axis]):
            offset = tap * self.dilation[axis] - self.padding[axis][0]  # the pixel it reads at place 0
            first = max(0, -(offset // stride))
            last = min(places - 1, (size - 1 - offset) // stride)
            if first <= last:
                reads = slice(first * stride + offset, last * stride + offset + 1, stride)
                yield tap, reads, slice(first, last + 1)


@lru_cache(maxsize=1024)
def _taps(window: Window, size: Pair) -> tuple[Tap, ...]:
    every = slice(None)
    return tuple(
        Tap(i, j, (..., rows, columns, every), (..., row_places, column_places, every))
        for i, rows, row_places in window._axis_taps(0, size[0])
        for j, columns, column_places in window._axis_taps(1, size[1])
    )
