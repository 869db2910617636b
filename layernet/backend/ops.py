"""The named kernels. `Ops` is the reference: plain array code that runs on numpy and on cupy.

Kernels come in pairs, `y, res = ops.name(x, ...)` and `ops.name_backward(dy, res, ...)`; what `res` holds is the
kernel's own affair, so an override may keep something else. A device's faster kernels subclass `Ops` and replace both
halves of a pair; a test compares each with the reference.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

from layernet.backend.reference.activation import ActivationOps
from layernet.backend.reference.arithmetic import ArithmeticOps
from layernet.backend.reference.channels import ChannelOps
from layernet.backend.reference.conv import ConvOps
from layernet.backend.reference.embedding import EmbeddingOps
from layernet.backend.reference.fused import FusedOps
from layernet.backend.reference.linear import LinearOps
from layernet.backend.reference.local import LocalOps
from layernet.backend.reference.local_norm import LocalNormOps
from layernet.backend.reference.loss import LossOps
from layernet.backend.reference.norm import NormOps
from layernet.backend.reference.optimizer import OptimizerOps
from layernet.backend.reference.pool import PoolOps
from layernet.backend.reference.randomness import RandomOps
from layernet.backend.reference.rectifier import RectifierOps
from layernet.backend.reference.resample import ResampleOps
from layernet.backend.reference.weight_norm import WeightNormOps


class Ops(
    FusedOps,
    LocalOps,
    RectifierOps,
    ActivationOps,
    ConvOps,
    LinearOps,
    NormOps,
    ChannelOps,
    ArithmeticOps,
    EmbeddingOps,
    LocalNormOps,
    LossOps,
    OptimizerOps,
    PoolOps,
    RandomOps,
    ResampleOps,
    WeightNormOps,
):
    """Reference kernels on the array module `xp`."""

    def __init__(self, xp: ModuleType) -> None:
        self.xp = xp

    def facts(self) -> dict[str, Any]:
        """What a run records of its kernels."""
        return {"kernels": self.xp.__name__}

    def alone(self) -> AbstractContextManager[Any]:
        """Within it, no other pool of threads works beside the kernels'."""
        return nullcontext()

    def limited(self, threads: int | None) -> AbstractContextManager[Any]:
        """Within it, kernels run on at most so many threads."""
        return nullcontext()
