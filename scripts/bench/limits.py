"""What the machine can do: floating-point operations and bytes a second, to measure kernels by."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from layernet.backend import compiled


def fastest(run: Callable[[], object], seconds: float) -> float:
    """The shortest time of `run` in about so many seconds of trying."""
    run()
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def peak(seconds: float) -> tuple[float, str]:
    """(FLOP/s, how it was measured): the register tile on cached data, else BLAS on a large matrix."""
    if compiled.problem() is None:
        from bench.tile import operations

        run, count = operations()
        return count / fastest(run, seconds), "the register tile on cached data"
    size = 1536
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    return 2 * size**3 / fastest(lambda: a @ a, seconds), f"BLAS, {size} x {size} matrices"


def bandwidth(megabytes: int, threads: int, seconds: float) -> float:
    """Bytes a second, read and written: a copy of so many megabytes, in equal parts by so many threads."""
    source = np.ones(megabytes << 20, dtype=np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return 2 * source.nbytes / fastest(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), seconds)
