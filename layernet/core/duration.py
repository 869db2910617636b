"""Stretches of training, as a config says them: `5 epochs`, `300 steps`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

DURATION = r"^\s*(\d+(?:\.\d+)?\s*epochs?|\d+\s*steps?)\s*$"
MINUTES = r"^\s*\d+(?:\.\d+)?\s*minutes?\s*$"
"""What a duration looks like, and minutes: patterns to search for in a text."""


@dataclass(frozen=True)
class Duration:
    """A count of epochs or of steps (optimizer updates)."""

    count: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `5 epochs`, `1 epoch`, `0.5 epochs` or `300 steps`. Raises ValueError for anything else."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(epoch|step)s?\s*", text) if isinstance(text, str) else None
        if not match or (match[2] == "step" and "." in match[1]):
            raise ValueError(f"expected a duration like '5 epochs' or '300 steps', got {text!r}")
        return cls(float(match[1]), f"{match[2]}s")

    def steps(self, steps_per_epoch: int) -> int:
        """In steps, rounded to the nearest; what is not nothing is at least one step, however short the epoch."""
        if self.unit == Interval.TIME:
            raise ValueError(f"how many steps {self} are, only the clock knows")
        steps = round(self.count * steps_per_epoch) if self.unit == "epochs" else int(self.count)
        return max(1, steps) if self.count else 0

    def __str__(self) -> str:
        return f"{self.count:g} {self.unit}"


@dataclass(frozen=True)
class Interval(Duration):
    """A Duration, or minutes: for what may depend on the clock, since no result does."""

    TIME: ClassVar[str] = "minutes"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From what a Duration is parsed from, and `30 minutes`. Raises ValueError for anything else."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*minutes?\s*", text) if isinstance(text, str) else None
        return cls(float(match[1]), cls.TIME) if match else super().parse(text)
