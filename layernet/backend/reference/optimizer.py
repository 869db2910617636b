"""One update of the optimizers whose formulas take many passes over flat arrays: one kernel may do it in one."""

from __future__ import annotations

from layernet.backend import Array
from layernet.backend.reference.base import KernelFamily


class OptimizerOps(KernelFamily):
    """All arrays are flat and of one length. w and the state change in place, the gradient g stays as it is."""

    def sgd_update(
        self,
        w: Array,
        g: Array,
        v: Array | None,
        *,
        lr: float,
        decay: float,
        momentum: float,
        gain: float,
        nesterov: bool,
    ) -> None:
        """v = momentum v + gain (g + decay w); w -= lr v, or with `nesterov` lr (g + decay w + momentum v).

        v is None where there is no momentum.
        """
        xp, move = self.xp, self.xp.empty_like(w)
        if decay:
            xp.multiply(w, decay, out=move)
            move += g
            g = move
        if v is not None:
            work = xp.empty_like(w)
            v *= momentum
            v += g if gain == 1 else xp.multiply(g, gain, out=work)
            if nesterov:
                xp.multiply(v, momentum, out=work)
                work += g
            g = work if nesterov else v
        w -= xp.multiply(g, lr, out=move)

    def adam_update(
        self,
        w: Array,
        g: Array,
        m: Array,
        v: Array,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        decay: float,
        shrink: float,
        t: int,
    ) -> None:
        """m and v, means of g + decay w and its square; w = shrink w - lr (m / c1) / (sqrt(v / c2) + eps).

        c = 1 - beta^t corrects for the start at 0; sqrt(c2) is kept out of the arrays.
        """
        xp, work = self.xp, self.xp.empty_like(w)
        if decay:
            g = g + decay * w
        if shrink != 1:
            w *= shrink
        beta1, beta2 = betas
        m *= beta1
        m += xp.multiply(g, 1.0 - beta1, out=work)
        v *= beta2
        xp.multiply(g, g, out=work)
        work *= 1.0 - beta2
        v += work
        offset, rate = adam_constants(lr, betas, eps, t)
        xp.sqrt(v, out=work)
        work += offset
        xp.divide(m, work, out=work)
        work *= rate
        w -= work

    def adagrad_update(self, w: Array, g: Array, v: Array, *, lr: float, decay: float, eps: float) -> None:
        """v += (g + decay w)^2; w -= lr (g + decay w) / (sqrt(v) + eps)."""
        xp, work = self.xp, self.xp.empty_like(w)
        if decay:
            g = g + decay * w
        v += xp.multiply(g, g, out=work)
        xp.sqrt(v, out=work)
        work += eps
        xp.divide(g, work, out=work)
        work *= lr
        w -= work

    def average_update(self, average: Array, values: Array, share: float) -> None:
        """average += share (values - average), for arrays of any one shape."""
        work = values - average
        work *= share
        average += work


def adam_constants(lr: float, betas: tuple[float, float], eps: float, t: int) -> tuple[float, float]:
    """(a, r) with r m / (sqrt(v) + a) = lr (m / c1) / (sqrt(v / c2) + eps)."""
    root = (1.0 - betas[1] ** t) ** 0.5
    return float(eps * root), float(lr * root / (1.0 - betas[0] ** t))
