"""Matrix products of layers, alone or with a ReLU behind them."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.compiled import elementwise, product
from layernet.backend.compiled.arrays import by_channel, gradient, takes
from layernet.backend.reference.fused import FusedOps


class CompiledLinearOps(FusedOps):
    def linear(self, x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
        if not _multiplies(x, weight, bias):
            return super().linear(x, weight, bias)
        return self._linear(x, weight, bias, False), (x, weight)

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
        x, weight = res
        if not takes(x, weight):
            return super().linear_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db, dw=dw)
        dy = gradient(dy, (*x.shape[:-1], len(weight)))
        gradients = self._linear_gradients(dy, x, weight, need_dx, need_dw, dw)
        return *gradients, self.channel_sum(dy) if need_db else None

    def linear_relu(self, x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
        if not _multiplies(x, weight, bias):
            return super().linear_relu(x, weight, bias)
        y = self._linear(x, weight, bias, True)
        return y, ((x, weight), y)

    def linear_relu_backward(
        self,
        dy: Array,
        res: Any,
        *,
        need_dx: bool = True,
        need_dw: bool = True,
        need_db: bool = True,
        dw: Array | None = None,
    ) -> tuple[Array | None, Array | None, Array | None]:
        (x, weight), y = res
        if not takes(x, weight, y):
            return super().linear_relu_backward(dy, res, need_dx=need_dx, need_dw=need_dw, need_db=need_db, dw=dw)
        dz, db = elementwise.relu_gradient_and_sum(gradient(dy, y.shape), y)
        gradients = self._linear_gradients(dz, x, weight, need_dx, need_dw, dw)
        return *gradients, db.astype(dz.dtype) if need_db else None

    def _linear(self, x: Array, weight: Array, bias: Array | None, relu: bool) -> Array:
        y = np.empty((*x.shape[:-1], len(weight)), dtype=x.dtype)
        product.linear(x.reshape(-1, x.shape[-1]), weight, _row(bias), y.reshape(-1, len(weight)), relu)
        return y

    def _linear_gradients(
        self, dy: Array, x: Array, weight: Array, need_dx: bool, need_dw: bool, dw: Array | None
    ) -> tuple[Array | None, Array | None]:
        rows = dy.reshape(-1, dy.shape[-1])
        dx = np.empty_like(x) if need_dx else None
        if dx is not None:
            product.linear_input_gradient(rows, weight, dx.reshape(-1, x.shape[-1]))
        if not need_dw:
            dw = None
        else:
            dw = np.empty_like(weight) if dw is None else dw
            product.linear_weight_gradient(x.reshape(-1, x.shape[-1]), rows, dw)
        return dx, dw


def _row(bias: Array | None) -> Array | None:
    """The biases as kernels read them."""
    return None if bias is None else np.ascontiguousarray(bias, dtype=np.float32)


def _multiplies(x: Array, weight: Array, bias: Array | None) -> bool:
    return takes(x, weight) and x.shape[-1:] == weight.shape[1:] and by_channel(len(weight), bias)
