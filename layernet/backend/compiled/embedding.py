"""The gradient of a table: each task has a share of its rows and looks for them among all numbers.

So the sums are made in one order, whatever the number of threads, and a number that is no row is nobody's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled.arrays import gradient
from layernet.backend.compiled.lanes import LANES
from layernet.backend.compiled.launch import Kernel, split
from layernet.backend.compiled.vectors import load_first, load_int, store_first
from layernet.backend.reference.embedding import EmbeddingOps


@Kernel
def _gradient(task, tasks, numbers, count, dy, rows, features, dw):
    first, last = split(rows, task, tasks)
    for place in range(count):
        row = load_int(numbers + place * 8)
        if first <= row < last:
            source, target = dy + place * features * 4, dw + row * features * 4
            for c in range(0, features, LANES):
                left, at = features - c, target + c * 4
                store_first(at, load_first(at, left) + load_first(source + c * 4, left), left)


class CompiledEmbeddingOps(EmbeddingOps):
    def embedding_backward(self, dy: Array, res: Any) -> Array:
        x, (rows, features) = res
        if dy.dtype != np.float32:
            return super().embedding_backward(dy, res)
        dy = gradient(dy, (*x.shape, features))
        numbers = np.ascontiguousarray(x, dtype=np.int64)
        dw = np.zeros((rows, features), dtype=np.float32)
        _gradient.launch(numbers=numbers, count=numbers.size, dy=dy, rows=rows, features=features, dw=dw)
        return dw
