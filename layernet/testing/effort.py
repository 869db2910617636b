"""How many points of a large layer or net are compared: a function of its size, not of any clock.

A check of a layer takes two passes for a point that agrees, and a config shall be checked in about a minute on one
core. So work is counted in multiply-adds, and where a full check would take more than is allowed, every tensor gets
fewer points. Directions go first, because each looks at all elements; a note says what was left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from layernet.core.layer import Layer
from layernet.core.sequential import Sequential
from layernet.core.summary import count_flops
from layernet.testing.engine import Settings

WHOLE = 1.2e11
"""Multiply-adds that the check of a whole net may take in one mode: what one core does in some 20 seconds."""
ALONE = 3e10
"""Those of one mode of the layers of a net alone, together."""

_ELEMENT = 20  # multiply-adds that one element takes otherwise: memory, roots
_WEIGHT = 6  # reading one weight from memory
_MOVE = 15  # moving one element along a direction and back


@dataclass(frozen=True)
class Effort:
    """What a check costs, in multiply-adds: `work` a pass, `moving` for one direction of all tensors of `sizes`."""

    work: float
    moving: float
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, layer: Layer, batch: int) -> Effort:
        """That of a built layer and a batch of so many examples."""
        parts = layer.layers if isinstance(layer, Sequential) else [layer]
        elements = batch * sum(math.prod(part.in_shape) + math.prod(part.out_shape) for part in parts)
        flops = sum(count_flops(part) or 0 for part in parts)
        params = [param.size for param in layer.params().values()]
        sizes = (batch * math.prod(layer.in_shape), *params)
        return cls(batch * flops + _ELEMENT * elements + _WEIGHT * sum(params), _MOVE * sum(sizes), sizes)

    def full(self, settings: Settings) -> float:
        """The work of a check with all the points of the settings."""
        return self._cost(settings.elements, settings.directions)

    def within(self, allowed: float, settings: Settings) -> tuple[Settings, str]:
        """(settings with as many points as the work allows, what was left out; nothing where all fits)."""
        if self.full(settings) <= allowed:
            return settings, ""
        directions = next((n for n in range(settings.directions, 1, -1) if self._cost(1, n) <= allowed / 2), 1)
        elements = next((n for n in range(settings.elements, 1, -1) if self._cost(n, directions) <= allowed), 1)
        modes = settings.modes if self._cost(elements, directions) <= allowed else settings.modes[:1]
        where = "in each mode" if len(modes) > 1 else f"in {modes[0]} mode alone"
        note = (
            f"large ({sum(self.sizes):,} elements, {self.work / 1e6:,.0f} million multiply-adds a pass): at most "
            f"{elements} elements and {directions} directions of a tensor were compared {where}, "
            f"not {settings.elements} and {settings.directions}"
        )
        return replace(settings, elements=elements, directions=directions, modes=modes), note

    def _cost(self, elements: int, directions: int) -> float:
        points = sum(min(size, elements) + directions * (size > elements) for size in self.sizes)
        return 2 * (points * self.work + directions * self.moving)


def shares(wanted: Sequence[float], total: float = ALONE) -> list[float]:
    """Divide the work among checks that want so much: what small ones leave over goes to the large ones."""
    given = [0.0] * len(wanted)
    left, waiting = total, sorted(range(len(wanted)), key=lambda i: wanted[i])
    for done, i in enumerate(waiting):
        given[i] = min(wanted[i], left / (len(waiting) - done))
        left -= given[i]
    return given
