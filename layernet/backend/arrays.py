"""Small array helpers that work on numpy and cupy alike, for layers of any author."""

from __future__ import annotations

from layernet.backend import Array, Shape


def sum_to(array: Array, shape: Shape) -> Array:
    """Sum the axes along which an array of `shape` was broadcast to the array's shape: broadcasting's backward."""
    extra = array.ndim - len(shape)
    stretched = tuple(extra + i for i, n in enumerate(shape) if n == 1 and array.shape[extra + i] != 1)
    axes = tuple(range(extra)) + stretched
    return array.sum(axis=axes, keepdims=False).reshape(shape) if axes else array
