"""Matrix products on the CPU, over the threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.numpy_channels import NumpyChannelOps
from layernet.backend.numpy_threads import LEAST_PRODUCT, workers
from layernet.backend.reference.linear import LinearOps


class NumpyLinearOps(LinearOps, NumpyChannelOps):
    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """a @ b for matrices or stacks of matrices, in stretches of its longest axis."""
        stacks = {a.shape[:-2], b.shape[:-2]} - {()}
        if min(a.ndim, b.ndim) < 2 or len(stacks) > 1:
            return np.matmul(a, b, out=out)
        shape = (*(stacks.pop() if stacks else ()), a.shape[-2], b.shape[-1])
        shares = workers.shares(int(np.prod(shape)) * a.shape[-1], LEAST_PRODUCT)
        if shares == 1:
            return np.matmul(a, b, out=out)
        y = np.empty(shape, dtype=np.result_type(a, b)) if out is None else out
        whole = slice(None)
        stacked = len(shape) > 2 and a.shape[:-2] == b.shape[:-2] and shape[0] >= shares
        axis = 0 if stacked else -2 if shape[-2] >= shape[-1] else -1

        def task(part: slice) -> None:
            if axis == 0:
                np.matmul(a[part], b[part], out=y[part])
            elif axis == -2:
                np.matmul(a[..., part, :], b, out=y[..., part, :])
            else:
                np.matmul(a, b[..., part], out=y[..., whole, part])

        workers.split(shape[axis], shares, task)
        return y

    def linear(self, x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
        y = self.matmul(x.reshape(-1, x.shape[-1]), weight.T)
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
        dx, dw, _ = super().linear_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=False, dw=dw)
        return dx, dw, self.channel_sum(dy) if need_db else None
