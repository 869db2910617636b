"""Rows of a table by number."""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class EmbeddingOps(KernelFamily):
    def embedding(self, x: Array, weight: Array) -> tuple[Array, Any]:
        """y = weight[x]: integers (...) and a table (rows, features) -> (..., features).

        Numbers that are no row raise DataError on the CPU. On a GPU, where a look would wait for the device, they wrap
        around.
        """
        return weight[x], (x, weight.shape)

    def embedding_backward(self, dy: Array, res: Any) -> Array:
        """dw: every row sums the dy of the places that read it."""
        x, shape = res
        dw = self.xp.zeros(shape, dtype=dy.dtype)
        self.xp.add.at(dw, x.reshape(-1), dy.reshape(-1, shape[1]))
        return dw
