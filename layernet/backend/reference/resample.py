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

    def _resampled(self, x: Array, rows: Array, columns: Array) -> Array:
        n, height, width, channels = x.shape
        down = self.xp.matmul(rows, x.reshape(n, height, width * channels))
        return self.xp.matmul(columns, down.reshape(n, len(rows), width, channels))
