"""One entry of the table: how it is drawn, measured and summed up."""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Options = dict[str, Any]


class Errors(NamedTuple):
    """Worst differences; None where there is nothing of the kind to compare."""

    output: float
    input_gradient: float | None = None
    parameter_gradient: float | None = None


NOTHING = Errors(0.0)

Compare = Callable[[Options, Shape, np.random.Generator], Errors]
DependentOptions = Callable[[DrawFn, Shape], Options]
"""Options that depend on one another or on the shape."""


@dataclass(frozen=True)
class Entry:
    """What is drawn, a shape with N and constructor arguments, and how one example of it is compared.

    An argument in `options` that `make` has a default for is left out of some examples, so that defaults are compared
    too; those that `dependent` draws are always given. A name may have several entries.
    """

    name: str
    make: Callable[..., Any]
    compare: Compare
    shapes: SearchStrategy[Shape]
    dependent: DependentOptions | None
    options: Mapping[str, SearchStrategy[Any]]

    def draw(self, draw: DrawFn) -> tuple[Options, Shape]:
        shape = draw(self.shapes)
        defaults = {name for name, p in inspect.signature(self.make).parameters.items() if p.default is not p.empty}
        options = {
            name: draw(strategy)
            for name, strategy in self.options.items()
            if name not in defaults or draw(st.integers(0, 3))
        }
        if self.dependent is not None:
            options |= self.dependent(draw, shape)
        return options, shape


@dataclass
class Row:
    """The examples of every entry of one name."""

    name: str
    draws: int = 0
    errors: Errors = NOTHING
    worst_at: str = ""
    """The example with the largest error."""

    @property
    def worst(self) -> float:
        return _largest(*self.errors) or 0.0

    def add(self, errors: Errors, example: str) -> None:
        largest = _largest(*errors) or 0.0
        if not self.draws or largest > self.worst or math.isnan(largest):
            self.worst_at = example
        self.errors = Errors(*(_largest(*pair) for pair in zip(self.errors, errors, strict=True)))  # type: ignore[arg-type]
        self.draws += 1


def measure(entry: Entry, draws: int, row: Row) -> None:
    """Add so many examples of the entry, no two the same, to the row. The same ones in every run."""
    wanted = row.draws + draws
    name = zlib.crc32(entry.name.encode())

    @seed(name + row.draws)
    @settings(
        max_examples=draws,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def example(data: st.DataObject) -> None:
        options, shape = entry.draw(data.draw)
        rng = np.random.default_rng([name, row.draws])
        row.add(entry.compare(options, shape, rng), describe(entry.name, options, shape))

    example()
    assert row.draws == wanted, f"{entry.name}: only {row.draws} different examples could be drawn"


def describe(name: str, options: Options, shape: Shape) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())}) on {shape}"


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to the largest number of theirs where that is above 1."""
    expected, got = theirs.detach().numpy(), np.asarray(ours)
    assert got.shape == expected.shape, f"shapes differ: ours {got.shape}, torch's {expected.shape}"
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


def worst(differences: list[float]) -> float | None:
    """The largest, NaN where one is; None of none."""
    return _largest(*differences)


def _largest(*errors: float | None) -> float | None:
    given = [error for error in errors if error is not None]
    return math.nan if any(map(math.isnan, given)) else max(given, default=None)


def to_theirs(array: Any, channels_first: bool) -> torch.Tensor:
    """A copy as a tensor; with `channels_first`, the last axis becomes the second."""
    tensor = torch.tensor(np.asarray(array))
    return tensor.movedim(-1, 1).contiguous() if channels_first and tensor.ndim > 2 else tensor
