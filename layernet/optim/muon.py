"""Muon: weights move by a matrix near the orthogonal one nearest to their momentum."""

from __future__ import annotations

import math
from typing import Literal, Self

from layernet.backend import Array
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.optim.optimizer import Groups, Optimizer, at_least_zero
from layernet.optim.optimizers import AdamW


class Muon(Optimizer):
    """v = momentum v + (1 - momentum) g;  w -= lr scale NS(v), for the weights; all else follows `rest`.

    NS brings the singular values of a matrix near 1 by `ns_steps` steps of Newton and Schulz with `ns_coefficients`.
    Parameters of two axes or more are matrices (units, all the rest): the filters of a convolution too. Biases, gains,
    and the weights whose paths match a pattern of `others` (the authors advise the head, and the first layer) follow
    the optimizer `rest` with its own lr and weight_decay, by default AdamW(3e-4, (0.9, 0.95), 1e-10, 0), as the
    authors'; give it no groups. The schedule moves both.

    `nesterov` uses (1 - momentum) g + momentum v in place of v. `weight_decay` is decoupled, w -= lr weight_decay w.
    `adjust_lr`: `original` scales by sqrt(max(1, units / rest)), `match_rms_adamw` by 0.2 sqrt(max(units, rest)) so
    that AdamW's lr fits, `none` by 1. `renormalize` scales each weight to the norm sqrt(units) before it moves, which
    with ns_steps 3, lr 0.24, momentum 0.6, adjust_lr none is airbench94_muon.

    As torch.optim.Muon, but in the net's float type, where torch rounds NS to bfloat16 (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon; match_rms_adamw: Liu et al. 2025, arXiv:2502.16982).
    """

    whole = True

    def __init__(
        self,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        adjust_lr: Literal["original", "match_rms_adamw", "none"] = "original",
        renormalize: bool = False,
        weight_decay: float = 0.0,
        others: list[str] | None = None,
        rest: Optimizer | None = None,
        groups: Groups | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must lie in 0..1 (below 1), got {momentum}")
        if not 1 <= ns_steps < 100:
            raise ValueError(f"ns_steps must lie in 1..99, got {ns_steps}")
        if len(ns_coefficients) != 3:
            raise ValueError(f"ns_coefficients must be three numbers, got {ns_coefficients}")
        if adjust_lr not in ("original", "match_rms_adamw", "none"):
            raise ValueError(f"adjust_lr must be original, match_rms_adamw or none, got {adjust_lr!r}")
        at_least_zero("eps", eps)
        if rest is not None and (rest.groups or rest.whole):
            raise ValueError(f"rest must be a plain optimizer without groups, got {rest!r}: give the groups to Muon")
        self.momentum, self.nesterov, self.ns_steps, self.ns_coefficients = (
            momentum,
            nesterov,
            ns_steps,
            ns_coefficients,
        )
        self.eps, self.adjust_lr, self.renormalize, self.others = eps, adjust_lr, renormalize, others
        self.rest = AdamW(3e-4, (0.9, 0.95), 1e-10, 0.0) if rest is None else rest

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("momentum", *self.rest.state_names)))

    def attach(self, net: Net) -> Self:
        others = {param.path for pattern in self.others or [] for param in net.matching(pattern)}
        super().attach(net)
        self.rest.ops, self.rest.xp, self.rest._scratch = self.ops, self.xp, self._scratch
        self._others = others
        return self

    def rule(self, param: Param) -> Optimizer:
        return self if len(param.shape) > 1 and param.path not in self._others else self.rest

    def update(self, w: Array, g: Array, state: dict[str, Array], lr: float, decay: float, t: int) -> None:
        v, units = state["momentum"], len(w)
        v *= self.momentum
        v += (1.0 - self.momentum) * g
        move = (1.0 - self.momentum) * g + self.momentum * v if self.nesterov else v
        if self.renormalize:
            w *= units**0.5 / self._norm(w)
        if decay:
            w *= 1.0 - lr * decay
        w -= (lr * self._scale(units, w.size // units)) * self._orthogonal(move.reshape(units, -1)).reshape(w.shape)

    def _orthogonal(self, x: Array) -> Array:
        """Near the orthogonal factor of x: each step maps a singular value s to a s + b s^3 + c s^5."""
        a, b, c = self.ns_coefficients
        tall = x.shape[0] > x.shape[1]
        x = (x.T if tall else x) / self._norm(x)
        for _ in range(self.ns_steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * (gram @ gram)) @ x
        return x.T if tall else x

    def _norm(self, x: Array) -> Array:
        return self.xp.maximum(self.xp.sqrt((x * x).sum()), self.eps)

    def _scale(self, units: int, rest: int) -> float:
        if self.adjust_lr == "original":
            return math.sqrt(max(1.0, units / rest))
        return 0.2 * math.sqrt(max(units, rest)) if self.adjust_lr == "match_rms_adamw" else 1.0
