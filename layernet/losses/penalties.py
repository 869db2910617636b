"""Objectives that look at parameters."""

from __future__ import annotations

from layernet.core.configurable import Configurable
from layernet.core.context import Context
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.losses.base import Number


class Penalty(Configurable):
    """Base of the objectives that look at parameters: those whose path matches the shell pattern `params`.

    The gain of a norm is called `weight` too; name layers (`conv*.weight`) to leave it out.
    """

    def __init__(self, params: str = "*.weight") -> None:
        self.params = params

    def select(self, net: Net) -> list[Param]:
        """The parameters it looks at. Raises UsageError when the pattern matches none."""
        return net.matching(self.params)

    def forward(self, params: list[Param], ctx: Context) -> Number:
        """The penalty's value."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, params: list[Param], scale: Number, ctx: Context) -> None:
        """Add `scale` times the gradient of the value to the parameters' gradients, through `ctx.add_grad`."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")


class L2Penalty(Penalty):
    """1/2 sum w^2: its gradient is w, so under plain SGD a weight of x acts like `weight_decay: x`."""

    def forward(self, params: list[Param], ctx: Context) -> Number:
        return 0.5 * sum(ctx.xp.vdot(p.data, p.data) for p in params)

    def backward(self, params: list[Param], scale: Number, ctx: Context) -> None:
        for param in params:
            if ctx.needs_grad(param):
                ctx.add_grad(param, scale * param.data)


class L1Penalty(Penalty):
    """sum |w|: its gradient is sign(w), 0 at 0; it draws weights to exactly 0."""

    def forward(self, params: list[Param], ctx: Context) -> Number:
        return sum(abs(p.data).sum() for p in params)

    def backward(self, params: list[Param], scale: Number, ctx: Context) -> None:
        for param in params:
            if ctx.needs_grad(param):
                ctx.add_grad(param, scale * ctx.xp.sign(param.data))
