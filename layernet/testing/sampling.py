"""Where a gradient check looks: inputs without ties, random weights for the outputs, elements of a tensor."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from layernet.backend import Shape
from layernet.backend.device import host
from layernet.backend.random import Stream, key_of
from layernet.core.layer import Layer
from layernet.errors import UsageError

HostArray = np.ndarray[Any, Any]

_SPAN = math.sqrt(3.7)  # irrational, so that no grid value falls on a kink like 0.5, 1 or 6


def stream(*key: int | str) -> Stream:
    """The float64 random numbers of a key, on the host: the same for every run of a check."""
    return Stream(key_of("gradcheck", *key), host().ops, "float64")


def tie_free(shape: Shape, rng: Stream) -> HostArray:
    """A shuffled grid over about (-1.9, 1.9): no two elements equal and none zero, so max and abs have no tie.

    The neighbours on the grid are 3.8 / size apart, far more than a difference quotient's step.
    """
    size = math.prod(shape)
    grid = (2.0 * np.asarray(rng.permutation(size)) + 1.5) / max(1, size) - 1.0
    return (_SPAN * grid).reshape(shape)


def input_for(layer: Layer, batch: int, shape: Shape, rng: Stream) -> HostArray:
    """A batch that the layer can be checked on: without ties, or integers for a layer that takes them.

    Raises UsageError where it does not say which integers.
    """
    reader = layer.reader
    if not reader.integer_input:
        return tie_free((batch, *shape), rng)
    if reader.integer_bound is None:
        raise UsageError(
            f"{reader.label} takes integers", "give the check an input batch x, or the layer an integer_bound"
        )
    return np.asarray(rng.integers(0, reader.integer_bound, (batch, *shape)))


def projection(shape: Shape, rng: Stream) -> HostArray:
    """Random weights r of the objective sum(r * y): of both signs, and away from zero so that no output is let off."""
    signs = np.where(np.asarray(rng.keep_mask(shape, 0.5)), 1.0, -1.0)
    return np.asarray(rng.uniform(shape, 0.5, 1.5)) * signs * (_SPAN / 2)  # a full mantissa: see `Function.random`


def stratified(shape: Shape, count: int, rng: Stream) -> HostArray:
    """At most `count` flat indices of an array of this shape: all of them when there are no more than that.

    Otherwise the corners, then elements spread over the last axis (channels) and over the first (output features), then
    others at random.
    """
    size = math.prod(shape)
    if size <= count:
        return np.arange(size)
    chosen: dict[int, None] = {}

    def add(indices: list[int], quota: int) -> None:
        for index in indices:
            if quota > 0 and index not in chosen and len(chosen) < count:
                chosen[index] = None
                quota -= 1

    corners = itertools.product(*({0, n - 1} for n in shape))
    add(sorted((int(np.ravel_multi_index(c, shape)) for c in corners), key=lambda i: min(i, size - 1 - i)), count // 4)
    for axis in (len(shape) - 1, 0):
        add(_spread(shape, axis, count // 4, rng), count // 4)
    while len(chosen) < count:  # a permutation of tens of millions would take longer than the passes
        add([int(i) for i in np.asarray(rng.integers(0, size, (count,)))], count)
    return np.array(sorted(chosen))


def _spread(shape: Shape, axis: int, count: int, rng: Stream) -> list[int]:
    """Flat indices whose coordinates on `axis` are spread evenly over it, the others random."""
    places = np.unique(np.linspace(0, shape[axis] - 1, count).round().astype(int))
    coordinates = [np.asarray(rng.integers(0, n, places.shape)) for n in shape]
    coordinates[axis] = places
    return [int(i) for i in np.ravel_multi_index(tuple(coordinates), shape)]
