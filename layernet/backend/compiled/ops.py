"""The kernels that numba compiles: what they take of float32 work on the CPU; the rest is numpy's."""

from __future__ import annotations

from layernet.backend.compiled.activation import CompiledActivationOps
from layernet.backend.compiled.arithmetic import CompiledArithmeticOps
from layernet.backend.compiled.batch_norm import CompiledBatchNormOps
from layernet.backend.compiled.depthwise import CompiledDepthwiseOps
from layernet.backend.compiled.elementwise import CompiledChannelOps
from layernet.backend.compiled.embedding import CompiledEmbeddingOps
from layernet.backend.compiled.group_norm import CompiledGroupNormOps
from layernet.backend.compiled.linear import CompiledLinearOps
from layernet.backend.compiled.local_norm import CompiledLocalNormOps
from layernet.backend.compiled.loss import CompiledLossOps
from layernet.backend.compiled.optimizer import CompiledOptimizerOps
from layernet.backend.compiled.peaks import CompiledPeakOps
from layernet.backend.compiled.pool import CompiledPoolOps
from layernet.backend.compiled.pooled import CompiledPooledConvOps
from layernet.backend.compiled.randomness import CompiledRandomOps
from layernet.backend.compiled.rectifier import CompiledRectifierOps
from layernet.backend.compiled.resample import CompiledResampleOps
from layernet.backend.compiled.rows import CompiledRowOps
from layernet.backend.compiled.threads import ThreadedOps
from layernet.backend.numpy_ops import NumpyOps


class CompiledOps(
    ThreadedOps,
    CompiledPoolOps,
    CompiledPeakOps,
    CompiledResampleOps,
    CompiledOptimizerOps,
    CompiledActivationOps,
    CompiledRectifierOps,
    CompiledEmbeddingOps,
    CompiledRowOps,
    CompiledLossOps,
    CompiledGroupNormOps,
    CompiledLocalNormOps,
    CompiledPooledConvOps,
    CompiledDepthwiseOps,
    CompiledLinearOps,
    CompiledChannelOps,
    CompiledBatchNormOps,
    CompiledRandomOps,
    CompiledArithmeticOps,
    NumpyOps,
):
    """All of them; `precise` leaves Winograd's filtering out, which rounds about five times as coarsely."""
