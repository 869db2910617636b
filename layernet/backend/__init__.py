"""Arrays and kernels: which array module runs, the named kernels, keyed random streams. Only this room imports cupy."""

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""A numpy or a cupy array."""

Shape: TypeAlias = tuple[int, ...]
