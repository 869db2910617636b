"""Rows of a table by number, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.reference.embedding import EmbeddingOps
from layernet.errors import DataError


class NumpyEmbeddingOps(EmbeddingOps):
    """The reference, with a look at the numbers, and with sums over sorted places, which are faster than `add.at`."""

    def embedding(self, x: Array, weight: Array) -> tuple[Array, Any]:
        if x.size and not ((low := x.min()) >= 0 and (high := x.max()) < len(weight)):
            wrong = low if low < 0 else high
            raise DataError(
                f"an embedding of {len(weight)} rows was asked for row {wrong}",
                f"its input must be integers from 0 to {len(weight) - 1}; num_embeddings says how many there are",
            )
        return super().embedding(x, weight)

    def embedding_backward(self, dy: Array, res: Any) -> Array:
        x, shape = res
        dw = np.zeros(shape, dtype=dy.dtype)
        if x.size:
            places = np.argsort(x, axis=None, kind="stable")
            rows = x.reshape(-1)[places]
            starts = np.flatnonzero(np.diff(rows, prepend=-1))
            dw[rows[starts]] = np.add.reduceat(dy.reshape(-1, shape[1])[places], starts, axis=0)
        return dw
