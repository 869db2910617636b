"""Arrays and kernels: which array module runs, the named kernels, keyed random streams. Only this room imports cupy."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from layernet.errors import UsageError

Array: TypeAlias = Any
"""A numpy or a cupy array."""

Shape: TypeAlias = tuple[int, ...]


def shape_of(name: str, shape: Sequence[int]) -> Shape:
    """A shape as it was given under `name`. Raises UsageError for what is none."""
    try:
        return tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        hint = f"one axis is ({shape},)" if isinstance(shape, int) else "for example (28, 28, 1)"
        raise UsageError(f"{name} must be a shape, got {shape!r}", hint) from None
