"""The gradient check itself: every tensor that a scalar function depends on, element by element and along directions.

One wrong element among many is found by the directions: in float64 the derivative along a random direction is exact
enough to show it (a share of 1 / sqrt(size) of the whole, against a tolerance of 1e-6), and halving the direction again
and again finds the element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.device import Device
from layernet.testing.differences import Line, Point, Tolerance, Verdict, judge, measure_noise
from layernet.testing.report import TensorResult
from layernet.testing.sampling import HostArray, stratified, stream

_TOLD = (Verdict.PASSED, Verdict.FAILED)
_FAR = 100.0  # how much larger the steps are where everything is below the rounding floor
_FEW = 16  # elements that are looked at then


@dataclass(frozen=True)
class Settings:
    """How a gradient check is done.

    seed: of inputs, projections and what is sampled. rtol: relative tolerance; the absolute one is measured. step: h,
    for an element x it is h max(1, |x|). elements: how many of a tensor are compared one by one (all, if it has no
    more). directions: how many random directions through the whole tensor are compared. max_skipped: the largest share
    of points that may stay unproven, at kinks or ill-conditioned. batch: N of inputs that are drawn. modes: `train`,
    `eval`. device: where to compute, as in `Net.bind`.
    """

    seed: int = 0
    rtol: float = 1e-6
    step: float = 1e-5
    elements: int = 64
    directions: int = 4
    max_skipped: float = 0.25
    batch: int = 3
    modes: tuple[str, ...] = ("train", "eval")
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("rtol", "step", "elements", "batch"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.modes or not set(self.modes) <= {"train", "eval"}:
            raise ValueError(f"modes must be 'train', 'eval' or both, got {self.modes}")


@dataclass(frozen=True)
class Variable:
    """An array that the function depends on, with the gradient that is claimed and the function of its content."""

    layer: str
    tensor: str
    data: Array
    gradient: HostArray
    evaluate: Callable[[], float]
    missing: bool = False
    """No gradient was ever given, so it counts as zero."""


@dataclass(frozen=True)
class Compared:
    """One compared point of a variable: an element, or a direction that found none wrong."""

    index: tuple[int, ...] | None
    point: Point


class Prober:
    """Changes one variable in place and puts it back exactly, and evaluates the function in between."""

    def __init__(self, variable: Variable, device: Device) -> None:
        self.variable = variable
        self.flat = variable.data.reshape(-1)
        self.values = np.array(device.to_numpy(self.flat))
        self.original = self.flat.copy()
        self._device = device

    def element(self, index: int) -> Line:
        """The line along one coordinate; t is what the rounded x + t really moved by."""
        x = float(self.values[index])

        def line(t: float) -> tuple[float, float]:
            moved = x + t
            self.flat[index] = moved
            try:
                return moved - x, self.variable.evaluate()
            finally:
                self.flat[index] = self.original[index]

        return line

    def direction(self, direction: HostArray) -> Line:
        """The line along a vector of the flat array's size."""
        step = self._device.asarray(direction)

        def line(t: float) -> tuple[float, float]:
            self.flat[...] = step
            self.flat *= t
            self.flat += self.original
            try:
                return t, self.variable.evaluate()
            finally:
                self.flat[...] = self.original

        return line


def noise_of(variables: Sequence[Variable], evaluate: Callable[[], float], device: Device, spacing: float) -> float:
    """The standard deviation of the function's rounding error, all variables moving at once in steps of `spacing`."""
    probers = [Prober(variable, device) for variable in variables]
    steps = [device.asarray(_signs(p.values.size, i) * np.maximum(1.0, abs(p.values))) for i, p in enumerate(probers)]

    def along(t: float) -> float:
        for prober, step in zip(probers, steps, strict=True):
            prober.flat[...] = step
            prober.flat *= t  # without arrays in between: a variable may have millions of elements
            prober.flat += prober.original
        return evaluate()

    try:
        return measure_noise(along, spacing)
    finally:
        for prober in probers:
            prober.flat[...] = prober.original


def compare(variable: Variable, centre: float, noise: float, settings: Settings, device: Device) -> list[Compared]:
    """Compare elements and directions of one variable with difference quotients."""
    prober = Prober(variable, device)
    found = _compare(prober, centre, noise, settings)
    if all(c.point.tiny for c in found):  # larger steps see smaller slopes, where the function is smooth enough
        far = replace(settings, step=_FAR * settings.step, elements=min(settings.elements, _FEW))
        told = [c for c in _compare(prober, centre, noise, far) if c.point.verdict in _TOLD and not c.point.tiny]
        found = [next((c for c in told if c.index == old.index), old) for old in found] if told else found
    return found


def _compare(prober: Prober, centre: float, noise: float, settings: Settings) -> list[Compared]:
    variable, shape = prober.variable, prober.variable.data.shape
    tolerance = Tolerance(settings.rtol, noise)
    gradient = variable.gradient.reshape(-1)
    key = (settings.seed, variable.layer, variable.tensor)
    found = []
    for index in stratified(shape, settings.elements, stream(*key, "elements")):
        step = settings.step * max(1.0, abs(float(prober.values[index])))
        point = judge(prober.element(int(index)), centre, float(gradient[index]), step, tolerance)
        found.append(Compared(tuple(int(i) for i in np.unravel_index(index, shape)), point))
    if gradient.size <= settings.elements:  # every element was compared: directions would add nothing
        return found
    for number in range(settings.directions):
        search = _Search(prober, gradient, centre, settings.step, tolerance, _signs(gradient.size, *key, number))
        point = search.judge(0, gradient.size)
        index_found = None
        if point.verdict is Verdict.FAILED and not any(c.point.verdict is Verdict.FAILED for c in found):
            start, stop, point = search.narrow(point)
            if stop - start == 1:
                index_found = tuple(int(i) for i in np.unravel_index(start, shape))
        found.append(Compared(index_found, point))
    return found


class _Search:
    """The derivative along a random direction, and along the parts of it that live on a range of elements."""

    def __init__(
        self, prober: Prober, gradient: HostArray, centre: float, step: float, tolerance: Tolerance, signs: HostArray
    ) -> None:
        self._prober, self._gradient, self._centre = prober, gradient, centre
        self._step, self._tolerance = step, tolerance
        self._direction = signs * np.maximum(1.0, abs(prober.values))

    def judge(self, start: int, stop: int) -> Point:
        """Compare along the direction's part on elements start..stop, scaled like a unit vector."""
        part = np.zeros_like(self._direction)
        np.divide(self._direction[start:stop], math.sqrt(stop - start), out=part[start:stop])
        claimed = float((self._gradient[start:stop] * part[start:stop]).sum())
        return judge(self._prober.direction(part), self._centre, claimed, self._step, self._tolerance)

    def narrow(self, point: Point) -> tuple[int, int, Point]:
        """Follow a failing direction by halves to the smallest range that still fails: one element, as a rule."""
        start, stop = 0, self._gradient.size
        while stop - start > 1:
            middle = (start + stop) // 2
            for half in ((start, middle), (middle, stop)):
                closer = self.judge(*half)
                if closer.verdict is Verdict.FAILED:
                    (start, stop), point = half, closer
                    break
            else:
                break
        if stop - start == 1:  # along the coordinate itself, so that the values are the element's own
            x = float(self._prober.values[start])
            step = self._step * max(1.0, abs(x))
            alone = judge(
                self._prober.element(start), self._centre, float(self._gradient[start]), step, self._tolerance
            )
            point = alone if alone.verdict is Verdict.FAILED else point
        return start, stop, point


def result_of(
    subject: str, mode: str, variable: Variable, compared: Sequence[Compared], directions: int
) -> TensorResult:
    """The numbers of one variable for the report."""
    points = [c.point for c in compared]
    elements = [p for p in points[: len(points) - directions] if p.verdict in _TOLD and not p.tiny]
    a, n = np.array([p.analytic for p in elements]), np.array([p.numeric[0] for p in elements])
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(n))

    def count(verdict: Verdict) -> int:
        return sum(p.verdict is verdict for p in points)

    return TensorResult(
        subject=subject,
        mode=mode,
        layer=variable.layer,
        tensor=variable.tensor,
        shape=tuple(int(i) for i in variable.data.shape),
        elements=len(points) - directions,
        directions=directions,
        kinks=count(Verdict.KINK),
        ill_conditioned=count(Verdict.ILL_CONDITIONED),
        unproven=sum(p.unproven for p in points),
        tiny=sum(p.tiny for p in points),
        failed=count(Verdict.FAILED),
        worst=max((p.error for p in points if p.verdict in _TOLD), default=0.0),
        norm_error=float(np.linalg.norm(a - n)) / max(norms) if max(norms) > 0 else 0.0,
        cosine=float(a @ n) / (norms[0] * norms[1]) if min(norms) > 0 else 1.0 if max(norms) == 0 else 0.0,
    )


def _signs(size: int, *key: Any) -> HostArray:
    return np.where(np.asarray(stream(*key, "signs").keep_mask((size,), 0.5)), 1.0, -1.0)
