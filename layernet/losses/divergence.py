"""Losses between distributions."""

from __future__ import annotations

from layernet.backend import Array
from layernet.core.context import Context
from layernet.losses.base import Loss, Number, like_outputs


class KLDiv(Loss):
    """sum_c q_c (log q_c - x_c): the divergence of exp(x) from the target q, for outputs x that are log-probabilities.

    Shape: outputs and float targets of one shape (N, ..., C); with `log_target` the targets are log q. The mean is over
    the rows, all that is not the last axis: for (N, C) that is torch.nn.KLDivLoss(reduction="batchmean"), which is
    the divergence itself; torch's own default divides by C once more. A class with q 0 counts 0, whatever its output.

    Raises ShapeError for shapes that differ, DataError for targets that are no floats.
    """

    targets = "numbers"

    def __init__(self, log_target: bool = False) -> None:
        self.log_target = log_target

    def forward(self, outputs: Array, target: Array, ctx: Context) -> tuple[Number, Number]:
        xp, target = ctx.xp, like_outputs(self, outputs, target, ctx)
        with ctx.ops.quiet():
            q, log_q = (xp.exp(target), target) if self.log_target else (target, xp.log(target))
            ctx.save(q)
            terms = xp.where(q == 0, 0, q * (log_q - outputs))
            return terms.sum(), outputs.size // outputs.shape[-1]

    def backward(self, ctx: Context) -> Array:
        (q,) = ctx.saved
        return -q
