"""Matrix products: the one place through which every GEMM of a layer goes."""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class LinearOps(KernelFamily):
    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """a @ b for matrices or stacks of matrices."""
        return self.xp.matmul(a, b, out=out)

    def linear(self, x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
        """y = x weight^T + bias over the last axis: (..., in) and (out, in) -> (..., out)."""
        rows = x.reshape(-1, x.shape[-1])
        y = self.matmul(rows, weight.T)
        if bias is not None:
            y += bias
        return y.reshape(*x.shape[:-1], weight.shape[0]), (x, weight)

    def linear_backward(
        self,
        dy: Array,
        res: Any,
        *,
        need_dx: bool = True,
        need_dw: bool = True,
        need_db: bool = True,
        dw: Array | None = None,
    ) -> tuple[Array | None, Array | None, Array | None]:
        """(dx, dw, db): dx = dy weight, dw = dy^T x, db = sum of dy over all but the last axis.

        Where the array `dw` is given, dw is written into it.
        """
        x, weight = res
        rows = dy.reshape(-1, dy.shape[-1])
        dx = self.matmul(rows, weight).reshape(x.shape) if need_dx else None
        dw = self.matmul(rows.T, x.reshape(-1, x.shape[-1]), out=dw) if need_dw else None
        db = rows.sum(axis=0) if need_db else None
        return dx, dw, db
