"""The gradient of one update: of several micro-batches as of one batch, and clipped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layernet.core.context import Tape
from layernet.core.net import Net
from layernet.core.param import Arena
from layernet.data.loader import Batch
from layernet.losses import Objective
from layernet.objectives import ObjectivesPass, total_of, without_penalties

_BLOCK = 1 << 13
"""Elements of a partial sum of squares: so few that float64 copies stay in cache and no BLAS takes several threads."""

_PROPORTIONAL = 1e-6
"""How far, relatively, the normalisers of two objectives may be from proportional."""


@dataclass(frozen=True)
class Pass:
    """One micro-batch, forward and loss."""

    batch: Batch
    tape: Tape
    objectives: ObjectivesPass


class Update:
    """The micro-batches of one update, each gone forward and back through in turn; their gradients add up in the net.

    The mean of an objective is that of all micro-batches: sum of sums over sum of normalisers. The second is known only
    at the end. Until then gradients are scaled by the first normaliser that was not 0, and put right by one factor.
    That fails only where objectives count differently from micro-batch to micro-batch (two heads, one with ignored
    labels): then `finish` goes through all of them again. Penalties count once.
    """

    def __init__(self, objectives: Sequence[Objective], net: Net, step: int) -> None:
        self._objectives, self._net, self._step = objectives, net, step
        self._scaled_by: dict[str, float] = {}
        self.passes: list[Pass] = []
        self.sums: dict[str, tuple[float, float]] = {}
        """(sum, normaliser) by objective name, of all micro-batches so far."""
        net.zero_grad()

    @property
    def total(self) -> float:
        """The weighted sum of the objectives' means so far."""
        return total_of(self._objectives, self.sums)

    def forward(self, batch: Batch) -> None:
        """The next micro-batch's forward and loss. The first one asks the penalties, too."""
        number = len(self.passes)
        done = self._forward(batch, number, without_penalties(self._objectives) if number else self._objectives)
        self.passes.append(done)
        for name, (value, normaliser) in done.objectives.sums.items():
            total, count = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = (total + value, count + normaliser)
            if normaliser:
                self._scaled_by.setdefault(name, normaliser)

    def backward(self) -> None:
        """Add the gradient of the last forward's micro-batch."""
        done = self.passes[-1]
        self._net.backward(done.tape, done.objectives.gradients(self._scaled_by), update_buffers=False)

    def finish(self) -> None:
        """Make what has added up the gradient of the total."""
        arena = self._net.arena
        factors = [
            self._scaled_by[o.name] / self.sums[o.name][1]
            for o in without_penalties(self._objectives)
            if o.weight != 0 and self.sums[o.name][1] and o.name in self._scaled_by
        ]
        if factors and max(factors) - min(factors) > _PROPORTIONAL * max(factors):
            self._again({name: normaliser for name, (_, normaliser) in self.sums.items() if normaliser})
        elif factors and factors[0] != 1:
            with arena.device.activate():
                arena.settle()
                arena.grad *= factors[0]
        self.passes[0].objectives.add_penalty_gradients()

    def update_buffers(self) -> None:
        """Apply the updates of running statistics, micro-batch by micro-batch."""
        for done in self.passes:
            done.tape.update_buffers()

    def _forward(self, batch: Batch, number: int, objectives: Sequence[Objective]) -> Pass:
        tape = self._net.forward(batch.x, training=True, step=self._step, micro_batch=number)
        return Pass(batch, tape, ObjectivesPass(objectives, self._net, tape, batch.target))

    def _again(self, normalisers: Mapping[str, float]) -> None:
        self._net.zero_grad()
        losses = without_penalties(self._objectives)
        for number, done in enumerate(self.passes):
            again = self._forward(done.batch, number, losses)
            self._net.backward(again.tape, again.objectives.gradients(normalisers), update_buffers=False)


def norm_of(arena: Arena) -> float:
    """The L2 norm of all gradients together, summed in float64: what is finite in float32 does not overflow."""
    block = _BLOCK if arena.device.name == "cpu" else max(1, arena.grad.size)
    total = 0.0
    with arena.device.activate():
        arena.settle()
        for start in range(0, arena.grad.size, block):
            part = arena.grad[start : start + block].astype("float64", copy=False)
            total += float(part @ part)
    return math.sqrt(total)


def clip(arena: Arena, norm: float | None, value: float | None) -> None:
    """Scale the gradient to the L2 norm `norm` where it is longer; cut each of its elements to -value..value.

    As torch.nn.utils.clip_grad_norm_ and clip_grad_value_ over all trained parameters (Pascanu et al. 2013,
    arXiv:1211.5063).
    """
    if norm is not None:
        factor = norm / (norm_of(arena) + 1e-6)
        if not factor >= 1:  # a gradient that is not finite stays so
            with arena.device.activate():
                arena.grad *= factor
    if value is not None:
        with arena.device.activate():
            arena.settle()
            arena.device.xp.clip(arena.grad, -value, value, out=arena.grad)
