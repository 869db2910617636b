"""Which pixels windows lie on, axis by axis: tables that kernels go by."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from layernet.backend import Array
from layernet.backend.window import Pair, Window


class Places(NamedTuple):
    """For each place of a window along one axis, the pixel at its tap 0 and the taps in the image: first, last + 1."""

    pixel: Array
    first: Array
    end: Array


class Covers(NamedTuple):
    """For pixel p of one axis, entries first[p] to before first[p + 1]: a place, and the tap that lies on p there."""

    first: Array
    place: Array
    tap: Array


Geometry = tuple[Places, Places, Covers, Covers]
"""Rows of places, columns of places, and what covers the rows and columns of pixels."""


@lru_cache(maxsize=256)
def geometry(window: Window, size: Pair) -> Geometry:
    """That of a window on images of this size."""
    out = window.out_size(size)
    places: list[Places] = []
    covers: list[Covers] = []
    for axis in (0, 1):
        pixel = np.arange(out[axis]) * window.stride[axis] - window.padding[axis][0]
        at = pixel[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        inside = (at >= 0) & (at < size[axis])
        first = np.where(inside.any(axis=1), inside.argmax(axis=1), 0)
        places.append(Places(*table(pixel, first, first + inside.sum(axis=1))))
        covers.append(covers_of(at, inside, size[axis]))
    return places[0], places[1], covers[0], covers[1]


def covers_of(at: Array, inside: Array, size: int) -> Covers:
    """From the pixel under each tap of each place (places, taps), and whether it counts."""
    place, tap = np.nonzero(inside)
    order = np.argsort(at[place, tap], kind="stable")
    counts = np.bincount(at[place, tap], minlength=size)
    return Covers(*table(np.concatenate([[0], np.cumsum(counts)]), place[order], tap[order]))


def table(*columns: Array) -> tuple[Array, ...]:
    return tuple(np.ascontiguousarray(column, dtype=np.int64) for column in columns)
