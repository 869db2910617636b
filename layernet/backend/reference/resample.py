"""Images made from other images by one matrix for the rows and one for the columns: interpolation, blurring, means."""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class ResampleOps(KernelFamily):
    def resample2d(self, x: Array, rows: Array, columns: Array) -> tuple[Array, Any]:
        """y = rows x columns^T in every channel: (N, H, W, C), (H', H), (W', W) -> (N, H', W', C)."""
        return self._resampled(x, rows, columns), (rows, columns)

    def resample2d_backward(self, dy: Array, res: Any) -> Array:
        """dx = rows^T dy columns."""
        rows, columns = res
        return self._resampled(dy, rows.T, columns.T)

    def sample2d(self, x: Array, rows: Array, columns: Array) -> tuple[Array, Any]:
        """y[i, j] = x[rows[i], columns[j]] in every channel: (N, H, W, C), (H',), (W',) -> (N, H', W', C)."""
        return x.take(rows, axis=1).take(columns, axis=2), (x.shape, rows, columns)

    def sample2d_backward(self, dy: Array, res: Any) -> Array:
        """dx: the sum of dy over the places that took the pixel."""
        (_, height, width, _), rows, columns = res
        takers = [(self.xp.arange(n)[:, None] == i).astype(dy.dtype) for n, i in ((height, rows), (width, columns))]
        return self._resampled(dy, *takers)

    def _resampled(self, x: Array, rows: Array, columns: Array) -> Array:
        n, height, width, channels = x.shape
        down = self.xp.matmul(rows, x.reshape(n, height, width * channels))
        return self.xp.matmul(columns, down.reshape(n, len(rows), width, channels))
