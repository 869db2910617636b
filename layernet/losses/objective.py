"""One term of what is minimised: a loss or a penalty, its weight and its name."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from layernet.errors import UsageError
from layernet.losses.base import Loss
from layernet.losses.penalties import Penalty


@dataclass(frozen=True)
class Objective:
    """A loss on one of the net's outputs, or a penalty on its parameters, and how much it counts.

    `name` is what logs call it; `named` gives one to those that have none.
    """

    loss: Loss | Penalty
    on: str = "output"
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"weight must be finite, got {self.weight}")
        if isinstance(self.loss, Penalty) and self.on != "output":
            raise ValueError(f"on: {self.on} means nothing for {type(self.loss).__name__}: it looks at parameters")


def named(objectives: Sequence[Objective]) -> list[Objective]:
    """The objectives, each with a name of its own: by default its class in snake_case, then with `_2`, `_3`, ...

    Raises UsageError for a name that is given twice.
    """
    taken = [objective.name for objective in objectives if objective.name]
    for name in taken:
        if taken.count(name) > 1:
            raise UsageError(f"two objectives are called {name!r}", "give each its own name")
    found = []
    for objective in objectives:
        if not objective.name:
            base = name = _snake_case(type(objective.loss).__name__)
            number = 1
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            taken.append(name)
            objective = replace(objective, name=name)
        found.append(objective)
    return found


def _snake_case(name: str) -> str:
    """CrossEntropy -> cross_entropy, BCEWithLogits -> bce_with_logits, L2Penalty -> l2_penalty."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
