"""Rows of a table by number, on the CPU."""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.reference.embedding import EmbeddingOps
from layernet.errors import DataError


class NumpyEmbeddingOps(EmbeddingOps):
    """The reference, and a look at the numbers."""

    def embedding(self, x: Array, weight: Array) -> tuple[Array, Any]:
        if x.size and not ((low := x.min()) >= 0 and (high := x.max()) < len(weight)):
            wrong = low if low < 0 else high
            raise DataError(
                f"an embedding of {len(weight)} rows was asked for row {wrong}",
                f"its input must be integers from 0 to {len(weight) - 1}; num_embeddings says how many there are",
            )
        return super().embedding(x, weight)
