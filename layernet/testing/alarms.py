"""False alarms: what is built in is right, so whatever the checks hold against it, with any seed, is their mistake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.testing.cases import Case
from layernet.testing.check_layer import inspect_layer
from layernet.testing.check_loss import inspect_loss
from layernet.testing.report import Failure

_POINTS = 40
"""Elements that one of many seeds compares, in all tensors together: other seeds look at others."""


_BLOCK, _SHARE = 8, 4


def seeds_for(case: Case, seeds: Sequence[int]) -> Sequence[int]:
    """The seeds that a case is tried with: all, and every fourth for a block of more than 8 parameters.

    What a block is made of has cases of its own, and the eight blocks would take two fifths of the time.
    """
    return seeds[:: _SHARE if _tensors(case) > _BLOCK else 1]


def alarms(case: Case, seed: int) -> list[Failure]:
    """What `check_layer` or `check_loss` hold against a case with one seed."""
    tensors = _tensors(case)
    few = {"elements": max(4, min(10, _POINTS // (1 + tensors))), "directions": 1}
    options: dict[str, Any] = {**few, **case.options, "seed": seed}
    target = case.make()
    if isinstance(target, Layer):
        return inspect_layer(target, case.shape, **options).failures
    return inspect_loss(target, case.shape, case.targets, **options).failures


def _tensors(case: Case) -> int:
    """How many parameters it has."""
    target = case.make()
    return len(Net([target], case.shape).params()) if isinstance(target, Layer) else 0
