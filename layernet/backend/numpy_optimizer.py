"""The updates of optimizers on the CPU: a block at a time, so that what its many passes touch stays in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from layernet.backend import Array
from layernet.backend.reference.optimizer import OptimizerOps

BLOCK = 1 << 16
"""Elements: with their gradient and state they fit into the second-level cache."""


class NumpyOptimizerOps(OptimizerOps):
    def sgd_update(self, w: Array, g: Array, v: Array | None, **settings: Any) -> None:
        for part in _blocks(w.size):
            super().sgd_update(w[part], g[part], None if v is None else v[part], **settings)

    def adam_update(self, w: Array, g: Array, m: Array, v: Array, **settings: Any) -> None:
        for part in _blocks(w.size):
            super().adam_update(w[part], g[part], m[part], v[part], **settings)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))
