"""Kernels that are faster on the CPU than the reference."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from layernet.backend import Array
from layernet.backend.numpy_channels import NumpyChannelOps, NumpyElementwiseOps
from layernet.backend.numpy_conv import NumpyConvOps, NumpyPoolOps
from layernet.backend.numpy_embedding import NumpyEmbeddingOps
from layernet.backend.numpy_optimizer import NumpyOptimizerOps
from layernet.backend.ops import Ops


class NumpyOps(
    NumpyConvOps, NumpyPoolOps, NumpyChannelOps, NumpyElementwiseOps, NumpyEmbeddingOps, NumpyOptimizerOps, Ops
):
    def __init__(self) -> None:
        super().__init__(np)

    def facts(self) -> dict[str, Any]:
        counts = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return {"kernels": "numpy", "threads": max(counts, default=1)}

    def limited(self, threads: int | None) -> AbstractContextManager[Any]:
        return threadpool_limits(threads, "blas")  # type: ignore[no-any-return]

    def random_words(self, key: tuple[int, int], draw: int, count: int) -> Array:
        # numpy's own Philox4x64-10 in C, started at our counter
        generator = np.random.Philox(
            key=np.array(key, dtype=np.uint64), counter=np.array([0, draw, 0, 0], dtype=np.uint64)
        )
        return generator.random_raw(count)
