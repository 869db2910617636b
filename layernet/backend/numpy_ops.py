"""Kernels that are faster on the CPU than the reference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.numpy_channels import NumpyElementwiseOps
from layernet.backend.numpy_conv import NumpyConvOps
from layernet.backend.numpy_embedding import NumpyEmbeddingOps
from layernet.backend.numpy_norm import NumpyNormOps
from layernet.backend.numpy_optimizer import NumpyOptimizerOps
from layernet.backend.numpy_pool import NumpyPoolOps
from layernet.backend.numpy_threads import blas, workers
from layernet.backend.ops import Ops
from layernet.backend.pool import one_blas_thread


class NumpyOps(
    NumpyConvOps, NumpyPoolOps, NumpyNormOps, NumpyElementwiseOps, NumpyEmbeddingOps, NumpyOptimizerOps, Ops
):
    """`precise` leaves Winograd's filtering out: it rounds five to ten times as coarsely."""

    def __init__(self, precise: bool = False) -> None:
        super().__init__(np)
        self.precise = precise

    def facts(self) -> dict[str, Any]:
        return {"kernels": "numpy", "precise": self.precise, "blas": blas()[1], "threads": workers.count}

    def alone(self) -> AbstractContextManager[Any]:
        return one_blas_thread

    def limited(self, threads: int | None) -> AbstractContextManager[Any]:
        return workers.limited(threads)

    def random_words(self, key: tuple[int, int], draw: int, count: int) -> Array:
        # numpy's own Philox4x64-10 in C, started at our counter
        generator = np.random.Philox(
            key=np.array(key, dtype=np.uint64), counter=np.array([0, draw, 0, 0], dtype=np.uint64)
        )
        return generator.random_raw(count)
