"""What the entries draw from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.pytorch.entry import Array, Options, Shape

flags = st.booleans()
# the first is what hypothesis begins with, and each is as likely: few examples shall not be spent on sizes of 1
batch, size, channels = (st.sampled_from(n) for n in ([2, 3, 4, 1], [5, 7, 6, 8, 4, 3, 2, 1], [4, 6, 3, 5, 2, 1]))

# shapes with N in front, features last
vectors: SearchStrategy[Shape] = st.tuples(batch, channels)
sequences: SearchStrategy[Shape] = st.tuples(batch, size, channels)
images: SearchStrategy[Shape] = st.tuples(batch, size, size, channels)
anything: SearchStrategy[Shape] = vectors | sequences | images


def several(shapes: SearchStrategy[Shape]) -> SearchStrategy[Shape]:
    """Those with more than one value a channel."""
    return shapes.filter(lambda shape: math.prod(shape[:-1]) > 1)


def numbers(low: int, high: int) -> SearchStrategy[Any]:
    """An argument of one number for all axes of an image, or of one for each."""
    one = st.integers(low, high)
    return one | st.tuples(one, one)


def window(draw: DrawFn, shape: Shape, dilated: bool = True, padded: bool = False) -> Options:
    """kernel_size and, where asked for, dilation of a window that fits, and padding of at most half its kernel."""
    axes = list(shape[1:-1])
    if draw(flags):
        axes = [min(axes)]  # one number for all of them
    kernel = [draw(st.sampled_from([k for k in (3, 2, 4, 1) if k <= n])) for n in axes]
    found = {"kernel_size": kernel}
    if dilated:
        room = [(n - 1) // (k - 1) if k > 1 else 2 for n, k in zip(axes, kernel, strict=True)]
        found["dilation"] = [draw(st.integers(1, min(3, most))) for most in room]
    if padded:
        found["padding"] = [draw(st.sampled_from(range(k // 2, -1, -1))) for k in kernel]
    return {name: numbers[0] if len(numbers) == 1 else tuple(numbers) for name, numbers in found.items()}


def divisor(draw: DrawFn, number: int) -> int:
    return draw(st.sampled_from([n for n in range(1, number + 1) if number % n == 0]))


# values of inputs: (random numbers, shape) -> array


def normal(rng: np.random.Generator, shape: Shape) -> Array:
    """Of small, middling or large size; never two alike, never at a kink."""
    return rng.normal(size=shape) * rng.choice([0.1, 1.0, 10.0])


def positive(rng: np.random.Generator, shape: Shape) -> Array:
    """Above 0, none of them close to it."""
    return rng.uniform(0.1, 4, shape)


def ties(rng: np.random.Generator, shape: Shape) -> Array:
    """A few whole numbers, so that many are alike or at a kink."""
    return rng.integers(-2, 3, shape).astype("float64")
