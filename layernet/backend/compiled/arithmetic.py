"""Sums of whole arrays, and arrays side by side, on all cores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled import elementwise
from layernet.backend.compiled.arrays import takes
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, address, split
from layernet.backend.compiled.vectors import load_first, store_first
from layernet.backend.reference.arithmetic import ArithmeticOps


@Kernel
def _copy_rows(task, tasks, source, source_pitch, target, target_pitch, rows, width):
    """Copy `rows` rows of `width` numbers, which begin `source_pitch` and `target_pitch` bytes apart."""
    first, last = split(rows, task, tasks)
    for row in range(first, last):
        at, to = source + row * source_pitch, target + row * target_pitch
        for c in range(0, width, LANES):
            store_first(to + c * 4, load_first(at + c * 4, width - c), width - c)


class CompiledArithmeticOps(ArithmeticOps):
    def add(self, a: Array, b: Array) -> Array:
        return elementwise.add(a, b) if takes(a, b) and a.shape == b.shape else super().add(a, b)

    def add_to(self, a: Array, b: Array) -> None:
        if takes(a, b) and a.shape == b.shape:
            elementwise.add(a, b, a)
        else:
            super().add_to(a, b)

    def concat(self, arrays: Sequence[Array]) -> Array:
        shape = arrays[0].shape[:-1]
        if not takes(*arrays) or any(a.ndim < 2 or a.shape[:-1] != shape for a in arrays):
            return super().concat(arrays)
        width = sum(a.shape[-1] for a in arrays)
        y, start = np.empty((*shape, width), dtype=np.float32), 0
        for a in arrays:
            own = a.shape[-1]
            _copy_rows.launch(
                source=a, source_pitch=own * 4, target=address(y) + start * 4, target_pitch=width * 4,
                rows=math.prod(shape), width=own,
            )  # fmt: skip
            start += own
        return y

    def cut(self, a: Array, widths: Sequence[int]) -> list[Array]:
        width, shape = sum(widths), a.shape[:-1]
        if not takes(a) or a.ndim < 2 or a.shape[-1] != width or min(widths) < 1:
            return super().cut(a, widths)
        parts, start = [], 0
        for own in widths:
            part = np.empty((*shape, own), dtype=np.float32)
            _copy_rows.launch(
                source=address(a) + start * 4, source_pitch=width * 4, target=part, target_pitch=own * 4,
                rows=math.prod(shape), width=own,
            )  # fmt: skip
            parts.append(part)
            start += own
        return parts
