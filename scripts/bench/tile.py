"""The register tile alone, as fast as it goes. Needs numba."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layernet.backend.compiled.lanes import BYTES
from layernet.backend.compiled.launch import Kernel, threads
from layernet.backend.compiled.tile import TILE_COLUMNS, TILE_ROWS, tile

DEPTH = 128
"""Products of a sum: so few that both operands stay in the first-level cache."""

REPEATS = 2_000
"""So few that a call takes about a millisecond: on a machine with other work, some are not disturbed."""


@Kernel
def _again_and_again(task, tasks, a, a_rows, b, c, c_rows, c_size, depth, repeats):
    for _ in range(repeats):
        tile(a, a_rows, 0, 4, b, 0, 2 * BYTES, 1, depth, c + task * c_size, c_rows, 0, TILE_COLUMNS, 0)


def operations() -> tuple[Callable[[], None], int]:
    """(a function that computes on every thread, how many floating-point operations a call of it takes)."""
    rng = np.random.default_rng(0)
    a = rng.random((TILE_ROWS, DEPTH), dtype=np.float32)
    b = rng.random((DEPTH, TILE_COLUMNS), dtype=np.float32)
    c = np.zeros((threads(), TILE_ROWS, TILE_COLUMNS), dtype=np.float32)
    a_rows, c_rows = (np.arange(TILE_ROWS) * array.strides[-2] for array in (a, c))

    def run() -> None:
        _again_and_again.launch(
            a=a, a_rows=a_rows, b=b, c=c, c_rows=c_rows, c_size=c.strides[0], depth=DEPTH, repeats=REPEATS,
        )  # fmt: skip

    return run, 2 * TILE_ROWS * DEPTH * TILE_COLUMNS * REPEATS * threads()
