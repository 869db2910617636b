"""The optimizers that work on all parameters alike, one element at a time."""

from __future__ import annotations

import math

from layernet.backend import Array
from layernet.optim.optimizer import Groups, Optimizer, at_least_zero


class SGD(Optimizer):
    """v = momentum v + (1 - dampening) g;  w -= lr v.

    `nesterov` uses g + momentum v in place of v. `weight_decay` adds weight_decay w to g. The first v is g itself. All
    as torch.optim.SGD.
    """

    one_kernel = True

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must lie in 0..1 (below 1), got {momentum}")
        if nesterov and (momentum == 0.0 or dampening != 0.0):
            raise ValueError(f"nesterov needs momentum and no dampening, got {momentum} and {dampening}")
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def update(self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, t: int) -> None:
        gain = 1.0 - self.dampening if t > 1 else 1.0
        self.ops.sgd_update(
            w, g, state.get("momentum"), lr=lr, decay=decay, momentum=self.momentum, gain=gain, nesterov=self.nesterov
        )


class Adam(Optimizer):
    """m, v = running means of g and g^2, corrected for their start at 0;  w -= lr m / (sqrt(v) + eps).

    `betas` are the means' memories. `weight_decay` adds weight_decay w to g. All as torch.optim.Adam (Kingma and Ba
    2015, arXiv:1412.6980).
    """

    one_kernel = True

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        _check_betas(betas)
        _positive("eps", eps)
        self.betas, self.eps = betas, eps

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def update(self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, t: int) -> None:
        self._follow(w, g, state, lr, decay, 1.0, t)

    def _follow(
        self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, shrink: float, t: int
    ) -> None:
        m, v = state["exp_avg"], state["exp_avg_sq"]
        self.ops.adam_update(w, g, m, v, lr=lr, betas=self.betas, eps=self.eps, decay=decay, shrink=shrink, t=t)


class AdamW(Adam):
    """Adam with decay outside of the gradient: w -= lr weight_decay w, then Adam without decay.

    All as torch.optim.AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, groups)

    def update(self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, t: int) -> None:
        self._follow(w, g, state, lr, 0.0, 1.0 - lr * decay, t)


class RMSprop(Optimizer):
    """v = a running mean of g^2;  w -= lr g / (sqrt(v) + eps).

    `alpha` is the mean's memory; `centered` takes the square of g's own running mean off v; with `momentum` the moves
    are summed, b = momentum b + g / (...), w -= lr b. `weight_decay` adds weight_decay w to g. All as
    torch.optim.RMSprop (Hinton's course of 2012, lecture 6e; centered: Graves 2013, arXiv:1308.0850). Caffe's rms_decay
    is `alpha`, its delta is `eps`.
    """

    def __init__(
        self,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        if not 0.0 <= alpha < 1.0:
            raise ValueError(f"alpha must lie in 0..1 (below 1), got {alpha}")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must lie in 0..1 (below 1), got {momentum}")
        _positive("eps", eps)
        self.alpha, self.eps, self.momentum, self.centered = alpha, eps, momentum, centered

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("square_avg", *["momentum"] * bool(self.momentum), *["grad_avg"] * self.centered)

    def update(self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, t: int) -> None:
        xp, work = self.xp, self.scratch(w)
        if decay:
            decayed = xp.multiply(w, decay, out=self.scratch(w, 1))
            decayed += g
            g = decayed
        v = state["square_avg"]
        v *= self.alpha
        xp.multiply(g, g, out=work)
        work *= 1.0 - self.alpha
        v += work
        if self.centered:
            m = state["grad_avg"]
            m *= self.alpha
            m += xp.multiply(g, 1.0 - self.alpha, out=work)
            xp.multiply(m, m, out=work)
            xp.subtract(v, work, out=work)
            xp.maximum(work, 0, out=work)  # rounding may leave less than the nothing it should
            xp.sqrt(work, out=work)
        else:
            xp.sqrt(v, out=work)
        work += self.eps
        xp.divide(g, work, out=work)
        if self.momentum:
            b = state["momentum"]
            b *= self.momentum
            b += work
            xp.multiply(b, lr, out=work)
        else:
            work *= lr
        w -= work


class Adagrad(Optimizer):
    """v = the sum of all g^2; w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps).

    v starts at `initial_accumulator_value`. `weight_decay` adds weight_decay w to g. All as torch.optim.Adagrad (Duchi
    et al. 2011, JMLR 12).
    """

    one_kernel = True

    def __init__(
        self,
        lr: float = 0.01,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        at_least_zero("lr_decay", lr_decay)
        at_least_zero("initial_accumulator_value", initial_accumulator_value)
        _positive("eps", eps)
        self.lr_decay, self.initial_accumulator_value, self.eps = lr_decay, initial_accumulator_value, eps

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("sum",)

    def update(self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, t: int) -> None:
        v = state["sum"]
        if t == 1:
            v += self.initial_accumulator_value
        rate = lr / (1.0 + (t - 1) * self.lr_decay)
        self.ops.adagrad_update(w, g, v, lr=rate, decay=decay, eps=self.eps)


class Lion(Optimizer):
    """w -= lr sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g, with (b1, b2) = `betas`.

    Every element moves by lr, so lr is three to ten times smaller than Adam's, and weight_decay as much larger: it is
    decoupled, w -= lr weight_decay w (Chen et al. 2023, arXiv:2302.06675).
    """

    def __init__(
        self,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        _check_betas(betas)
        self.betas = betas

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("exp_avg",)

    def update(self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, t: int) -> None:
        xp, work, move, m = self.xp, self.scratch(w), self.scratch(w, 1), state["exp_avg"]
        beta1, beta2 = self.betas
        if decay:
            w *= 1.0 - lr * decay
        xp.multiply(m, beta1, out=move)
        move += xp.multiply(g, 1.0 - beta1, out=work)
        xp.sign(move, out=move)
        move *= lr
        w -= move
        m *= beta2
        m += xp.multiply(g, 1.0 - beta2, out=work)


def _check_betas(betas: tuple[float, float]) -> None:
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"betas must be two numbers in 0..1 (below 1), got {betas}")


def _positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive, got {value}")
