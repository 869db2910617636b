"""The threads that compiled kernels run on: numba's, beside which BLAS has one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numba

from layernet.backend.compiled.lanes import LANES
from layernet.backend.numpy_threads import workers
from layernet.backend.pool import one_blas_thread


class ThreadedOps:
    """What kernels tell and ask of the machine."""

    precise: bool

    def facts(self) -> dict[str, Any]:
        return {
            "kernels": "numba",
            "precise": self.precise,
            "lanes": LANES,
            "threads": numba.get_num_threads(),
            "threading_layer": numba.threading_layer(),
        }

    def alone(self) -> AbstractContextManager[Any]:
        return one_blas_thread

    @contextmanager
    def limited(self, threads: int | None) -> Iterator[None]:
        before, most = numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS
        numba.set_num_threads(min(threads or most, most))
        try:
            with workers.limited(threads):  # what is numpy's to do
                yield
        finally:
            numba.set_num_threads(before)
