"""The updates of optimizers on the CPU: a block at a time, so that what its many passes touch stays in the cache."""

from __future__ import annotations

from typing import Any

from layernet.backend import Array
from layernet.backend.numpy_threads import passes
from layernet.backend.reference.optimizer import OptimizerOps


class NumpyOptimizerOps(OptimizerOps):
    def sgd_update(self, w: Array, g: Array, v: Array | None, **settings: Any) -> None:
        update = super().sgd_update
        passes(w.shape, lambda part: update(w[part], g[part], None if v is None else v[part], **settings))

    def adam_update(self, w: Array, g: Array, m: Array, v: Array, **settings: Any) -> None:
        update = super().adam_update
        passes(w.shape, lambda part: update(w[part], g[part], m[part], v[part], **settings))

    def adagrad_update(self, w: Array, g: Array, v: Array, **settings: Any) -> None:
        update = super().adagrad_update
        passes(w.shape, lambda part: update(w[part], g[part], v[part], **settings))

    def average_update(self, average: Array, values: Array, share: float) -> None:
        update = super().average_update
        if average.ndim:
            passes(average.shape, lambda part: update(average[part], values[part], share))
        else:
            update(average, values, share)
