"""From compared points to a report: one failure for each tensor that is wrong, with its worst element."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layernet.backend.device import Device
from layernet.testing.causes import likely_cause
from layernet.testing.differences import Tolerance, Verdict
from layernet.testing.engine import Compared, Settings, Variable, compare, noise_of, result_of
from layernet.testing.report import Failure, Report

_EPS = 2.0**-52
_FINE, _COARSE = 1e-10, 1e-6  # spacings for measuring noise: beyond float64's and beyond float32's resolution
_MOST_NOISE = 1e-12  # of the function's scale; more would make the tolerance meaningless
_FEW = 4  # points of which a share means nothing
_SINGLE_NOISE = (1e-9, 5e-7)  # float32's relative to the function's scale


@dataclass(frozen=True)
class Function:
    """A scalar function of variables in one mode, as a report calls it.

    `counts` are sizes by name that a wrong gradient may be off by; `random` says that every gradient is a sum of
    random numbers with full mantissas, so that none is exact in float32 unless it was computed there.
    """

    subject: str
    mode: str
    variables: Sequence[Variable]
    evaluate: Callable[[], float]
    scale: float
    counts: Mapping[str, int]
    random: bool

    def failure(self, rule: str, variable: Variable, message: str, cause: str = "") -> Failure:
        """A failure of one of the variables as a whole."""
        return Failure(rule, self.subject, self.mode, variable.layer, variable.tensor, message, cause=cause)


def check(function: Function, device: Device, settings: Settings) -> Report:
    """Compare every variable's gradient with difference quotients of the function."""
    report = Report(function.subject)
    centre = function.evaluate()
    if not math.isfinite(centre):
        report.failures.append(
            Failure("nan", function.subject, function.mode, function.subject, "output", "the value is not finite")
        )
        return report
    measured = noise_of(function.variables, function.evaluate, device, _FINE)
    limits = (_EPS / 4 * function.scale, _MOST_NOISE * function.scale)
    noise = min(max(measured, limits[0]), limits[1]) if function.scale > 0 else measured
    for variable in function.variables:
        _check_variable(function, variable, centre, noise, device, settings, report)
    if any(failure.rule == "gradient" for failure in report.failures) and _is_single(function, device):
        cause = "the function is rough at a scale far above float64's: is it computed in float32 on the way?"
        report.failures = [
            Failure(**{**vars(f), "cause": cause}) if f.rule == "gradient" else f for f in report.failures
        ]
    return report


def _check_variable(
    function: Function,
    variable: Variable,
    centre: float,
    noise: float,
    device: Device,
    settings: Settings,
    report: Report,
) -> None:
    shape = variable.data.shape
    bad = ~np.isfinite(variable.gradient)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        message = f"{int(bad.sum())} of {bad.size} elements of the gradient are not finite, the first at {list(first)}"
        cause = "written with += into a buffer that holds nothing yet; use ctx.add_grad" if bad.all() else ""
        report.failures.append(function.failure("nan", variable, message, cause))
        return
    compared = compare(variable, centre, noise, settings, device)
    elements = min(variable.gradient.size, settings.elements)
    directions = len(compared) - elements
    report.tensors.append(result_of(function.subject, function.mode, variable, compared, directions))
    report.notes += _doubts(function, variable, compared)
    failed = [c for c in compared if c.point.verdict is Verdict.FAILED]
    if failed:
        cause = likely_cause(variable, compared, function.counts)
        report.failures.append(_differs(function, variable, compared, failed, cause))
    skipped = sum(c.point.unproven for c in compared)
    if skipped and len(compared) < _FEW:
        report.notes.append(
            f"{variable.layer}: {variable.tensor} ({function.mode}): {skipped} of {len(compared)} points lie at kinks "
            "or are ill-conditioned and prove nothing"
        )
    elif skipped > max(1.0, settings.max_skipped * len(compared)):
        report.failures.append(
            function.failure(
                "kinks",
                variable,
                f"{skipped} of {len(compared)} points lie at kinks or are ill-conditioned and prove nothing "
                f"(at most {settings.max_skipped:.0%} may)",
                "the inputs are ties, or the function is smooth nowhere; give other inputs",
            )
        )
    told = variable.gradient[abs(variable.gradient) > Tolerance(settings.rtol, noise).floor(settings.step)]
    if function.random and told.size > 1 and (told == told.astype(np.float32)).all():
        report.failures.append(
            function.failure(
                "precision", variable, f"the gradient of shape {shape} was computed in float32, the net is in float64"
            )
        )


def _doubts(function: Function, variable: Variable, compared: Sequence[Compared]) -> list[str]:
    """What is to be said of points that did not fail and were not told for certain."""
    doubtful = [c for c in compared if c.point.verdict is Verdict.ILL_CONDITIONED]
    if not doubtful:
        return []
    worst = max(doubtful, key=lambda c: abs(c.point.numeric[0] - c.point.numeric[1]))
    place = "along a direction" if worst.index is None else f"at {list(worst.index)}"
    a, (one, two), (h, half) = worst.point.analytic, worst.point.numeric, worst.point.steps
    return [
        f"{variable.layer}: {variable.tensor} ({function.mode}): {len(doubtful)} ill-conditioned of {len(compared)} "
        f"points, the worst {place}: analytic {a:.10g}, numeric {one:.10g} at h = {h:.3g}, {two:.10g} at h = {half:.3g}"
    ]


def _differs(
    function: Function, variable: Variable, compared: Sequence[Compared], failed: Sequence[Compared], cause: str
) -> Failure:
    worst = max(failed, key=lambda c: (c.index is not None, c.point.error))
    missing = variable.missing or (not variable.gradient.any())
    message = f"{len(failed)} of {len(compared)} compared points differ"
    if worst.index is None:
        message += ", the worst along a random direction"
    if worst.point.reason:
        message += f" ({worst.point.reason})"
    return Failure(
        rule="missing" if missing else "gradient",
        subject=function.subject,
        mode=function.mode,
        layer=variable.layer,
        tensor=variable.tensor,
        message=message,
        index=worst.index,
        analytic=worst.point.analytic,
        numeric=worst.point.numeric,
        steps=worst.point.steps,
        cause=cause,
    )


def _is_single(function: Function, device: Device) -> bool:
    coarse = noise_of(function.variables, function.evaluate, device, _COARSE)
    return _SINGLE_NOISE[0] * function.scale < coarse < _SINGLE_NOISE[1] * function.scale
