"""Difference quotients along a line, and the verdict they give on one analytic derivative.

Along a line x + t d the objective is f(t), and the analytic gradient claims f'(0) = a. The central difference

    D(h) = (f(h) - f(-h)) / 2h = f'(0) + h^2 f'''/6 + (e+ - e-) / 2h

is off by a truncation error, which shrinks with h, and by the rounding errors e of the two values, which grows with
1/h. The truncation error is held down by h = 1e-5 (relative 1e-10 f'''/6f', far below the tolerance); the
second step h/2 shows where that does not hold. The rounding errors are *measured*, not guessed: `noise` is the
standard deviation of f's rounding error at the very point (see `measure_noise`). D(h) then has the standard deviation
noise / (sqrt(2) h), and

    floor(h) = 10 noise / h        (14 standard deviations)

is the absolute part of the tolerance: |a - D| <= floor(h) + rtol max(|a|, |D|). It is tied to the scale of the
objective, and nothing smaller can be seen at that step by anybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np

Line = Callable[[float], tuple[float, float]]
"""t -> (the t that was taken after rounding x + t, the objective there). At t = 0 it must not be asked."""

_NOISES = 10.0
_ZOOM = (16.0, 64.0, 256.0)
_BLUR = 4.0  # several kinks near the point may move a quotient more than their bends show
_PROOF = 0.01  # a comparison that is less exact than this proves little


class Verdict(Enum):
    PASSED = "passed"
    KINK = "kink"
    """f has a kink at or near the point. The analytic value agrees at a smaller step, or is a subgradient."""
    ILL_CONDITIONED = "ill-conditioned"
    """The two steps disagree. The analytic value agrees with the second, or at a smaller step."""
    FAILED = "failed"


@dataclass(frozen=True)
class Point:
    """What was found at one point: the verdict, and the numbers it rests on."""

    verdict: Verdict
    analytic: float
    numeric: tuple[float, float]
    """The central differences at both steps; nan for a second step that was not needed."""
    steps: tuple[float, float]
    error: float
    """|a - n| / (max(|a|, |n|) + floor / rtol) of the nearer step: at most rtol where the two agree."""
    tiny: bool = False
    """Both values are below the rounding floor: the point shows only that they are."""
    unproven: bool = False
    """A kink or ill-conditioned, and compared to no better than 1 %."""
    reason: str = ""


@dataclass(frozen=True)
class Tolerance:
    """What counts as equal: relative `rtol`, and the rounding floor that follows from the objective's noise."""

    rtol: float
    noise: float

    def floor(self, step: float) -> float:
        """The smallest slope that a central difference at this step can tell from zero."""
        return _NOISES * self.noise / step

    def slack(self, step: float, *values: float) -> float:
        """How far apart two differences of about these values may be at this step."""
        return self.floor(step) + self.rtol * max(map(abs, values))

    def agree(self, a: float, n: float, step: float) -> bool:
        """Whether |a - n| <= floor(step) + rtol max(|a|, |n|)."""
        return abs(a - n) <= self.slack(step, a, n)

    def error(self, a: float, n: float, step: float) -> float:
        """The deviation as a relative error, damped where the values are small: `agree` means at most rtol."""
        scale = max(abs(a), abs(n)) + self.floor(step) / self.rtol
        return abs(a - n) / scale if scale > 0 else 0.0


def judge(line: Line, centre: float, analytic: float, step: float, tolerance: Tolerance) -> Point:
    """Compare an analytic derivative with the central differences at `step` and step / 2.

    `centre` is the objective at t = 0. The second step is taken only where the first does not agree: two numbers that
    agree to 1e-6 do not do so by chance.
    """
    a, half = analytic, step / 2
    low, high = line(-step), line(step)
    first = _slope(low, high)

    def point(
        verdict: Verdict, numeric: float, second: float, taken: float, reason: str = "", at_kink: bool = False
    ) -> Point:
        tiny = max(abs(a), abs(numeric)) <= tolerance.floor(taken)
        error = tolerance.error(a, numeric, taken)
        unsure = tolerance.slack(taken, a, numeric) > _PROOF * max(abs(v) for v in (a, numeric, first, second))
        skipped = verdict in (Verdict.KINK, Verdict.ILL_CONDITIONED)
        return Point(verdict, a, (first, second), (step, half), error, tiny, skipped and (at_kink or unsure), reason)

    if not math.isfinite(first):
        return point(Verdict.FAILED, first, math.nan, step, "the objective is not finite next to the point")
    if tolerance.agree(a, first, step):
        return point(Verdict.PASSED, first, math.nan, step)
    low_half, high_half = line(-half), line(half)
    second = _slope(low_half, high_half)
    origin = (0.0, centre)
    slopes = [
        _slope(low, low_half),
        _slope(low_half, origin),
        _slope(origin, high_half),
        _slope(high_half, high),
    ]
    bends = (slopes[0] - 2 * slopes[1] + slopes[2], slopes[1] - 2 * slopes[2] + slopes[3])
    bend = max(map(abs, bends))
    settled = abs(first - second) <= 4 * tolerance.slack(half, first, second)
    settled = settled and bend <= 4 * tolerance.slack(half, *slopes)
    agrees = tolerance.agree(a, second, half)
    if settled and (agrees or abs(a - second) > _BLUR * bend):  # else kinks too small to tell from noise may explain it
        verdict = Verdict.PASSED if agrees else Verdict.FAILED
        return point(verdict, second, second, half)
    # a third derivative bends all four slopes alike, a kink only those on its own side
    uneven = abs(bends[0] - bends[1]) > 0.5 * bend
    skipped = Verdict.KINK if uneven else Verdict.ILL_CONDITIONED
    if agrees:
        return point(skipped, second, second, half)
    verdict, numeric, taken, reason, at_kink = _zoom(line, centre, a, step, tolerance, skipped)
    return point(verdict, numeric, second, taken, reason, at_kink)


def _zoom(
    line: Line, centre: float, a: float, step: float, tolerance: Tolerance, skipped: Verdict
) -> tuple[Verdict, float, float, str, bool]:
    """Look closer, with ever smaller steps, where two steps disagree.

    A kink beside the point falls out of the interval, and the quotient can be compared again, if less exactly. What
    stays is a kink at the point: the one-sided slopes L and R keep their distance, and the analytic value must lie
    between them. A distance that grows with 1/h is a jump of the objective itself, which has no derivative.

    Returns (verdict, slope, step it was taken at, reason, whether the kink is at the point).
    """
    distances: list[float] = []
    for factor in _ZOOM:
        h = step / factor
        low, high = line(-h), line(h)
        left, right = _slope(low, (0.0, centre)), _slope((0.0, centre), high)
        middle = _slope(low, high)
        distances.append(abs(right - left))
        smooth = distances[-1] <= tolerance.slack(h, left, right)
        if smooth and tolerance.agree(a, middle, h):
            return skipped, middle, h, "", False
    if smooth:
        return Verdict.FAILED, middle, h, "", False
    if distances[-1] > 4 * distances[0]:
        return Verdict.FAILED, middle, h, "the objective jumps here", False
    slack = tolerance.slack(h, left, right)
    if distances[-1] < distances[0] / 4:  # strong curvature: the slope is known to within the distance only
        skipped = Verdict.ILL_CONDITIONED
        slack += distances[-1]
    if min(left, right) - slack <= a <= max(left, right) + slack:
        return skipped, min(max(a, min(left, right)), max(left, right)), h, "", True
    return Verdict.FAILED, middle, h, f"outside the one-sided slopes {left:.9g} and {right:.9g} of a kink", False


def _slope(p: tuple[float, float], q: tuple[float, float]) -> float:
    return (q[1] - p[1]) / (q[0] - p[0])


def measure_noise(line: Callable[[float], float], spacing: float) -> float:
    """The standard deviation of the rounding error of f, from its values at 0, s, 2s, ... (Moré and Wild 2011).

    f is a smooth function plus noise. The k-th differences of the smooth part vanish like s^k, while those of
    independent errors of variance v have variance v (2k)! / (k!)^2: so the table of differences shows v, from some
    order on the same. We take the largest over orders 3 to 6, being after a bound.
    """
    values = np.array([line(spacing * k) for k in range(9)])
    if not np.isfinite(values).all():
        return math.inf
    levels = []
    for order in range(1, 7):
        values = np.diff(values)
        gain = math.factorial(2 * order) / math.factorial(order) ** 2
        levels.append(math.sqrt(float(np.mean(values**2)) / gain))
    return max(levels[2:])
