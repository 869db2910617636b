"""Many checks in turn, and their outcome as one table and as plain data: what the command line and the scripts run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layernet.config.lookup import article
from layernet.config.names import BUILT_IN
from layernet.core.layer import Layer
from layernet.errors import UsageError, did_you_mean
from layernet.losses import Loss, Penalty
from layernet.testing.cases import CASES, TARGETS, Case
from layernet.testing.check_layer import inspect_layer
from layernet.testing.check_loss import inspect_loss
from layernet.testing.report import COUNTS, Report, plain

_ROW = "{:44} {:>7} {:>8} {:>10} {:>6} {:>4} {:>8} {:>8} {:>7}  {}"
HEADINGS = _ROW.format("case", "tensors", "elements", "directions", "kinks", "ill", "unproven", "worst", "seconds", "")

Progress = Callable[[str], None]
"""Told what is being checked now."""


@dataclass(frozen=True)
class Job:
    """One check. `run` takes the fields of `Settings` and `progress`."""

    label: str
    run: Callable[..., Report]


@dataclass
class Suite:
    """The outcome of several checks, in their order. `str` is what is left to say below the table of `row`s."""

    reports: list[Report] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def wrong(self) -> list[Report]:
        """The reports that are not ok."""
        return [report for report in self.reports if not report.ok]

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing is wrong."""
        return bool(self.reports) and not self.wrong

    @property
    def worst(self) -> float:
        """The largest relative error of all."""
        return max((report.worst for report in self.reports), default=0.0)

    def count(self, what: str) -> int:
        """The sum over all reports of one of their counts."""
        return sum(report.count(what) for report in self.reports)

    def summary(self) -> str:
        """The outcome in one line."""
        skipped = ", ".join(f"{self.count(what)} {what.replace('_', '-')}" for what in COUNTS[2:])
        return (
            f"{len(self.reports)} cases, {len(self.wrong)} wrong, worst relative error {self.worst:.1e}, "
            f"{skipped}, {self.seconds:.1f} s"
        )

    def __str__(self) -> str:
        found: dict[str, list[str]] = {}
        for report in self.reports:
            for note in report.notes if report.ok else []:  # else the report says it
                found.setdefault(note, []).append(report.title)
        notes = [
            f"note: {titles[0] if len(titles) == 1 else f'{len(titles)} cases'}: {note}"
            for note, titles in found.items()
        ]
        return "\n\n".join(["\n".join(notes)] * bool(notes) + [*map(str, self.wrong), self.summary()])

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON: the same numbers, and every report."""
        return {
            "ok": self.ok,
            "cases": len(self.reports),
            "wrong": len(self.wrong),
            "worst": plain(self.worst),
            **{what: self.count(what) for what in COUNTS},
            "seconds": self.seconds,
            "reports": [report.as_dict() for report in self.reports],
        }


def run(
    jobs: Iterable[Job],
    *,
    done: Callable[[Report], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Suite:
    """Run the checks; `done` is told each report as it is there. `options` are the fields of `Settings`."""
    start, suite = time.perf_counter(), Suite()
    for job in jobs:
        if progress is not None:
            progress(job.label)
        report = job.run(progress=progress, **options)
        report.title = job.label
        suite.reports.append(report)
        if done is not None:
            done(report)
    suite.seconds = time.perf_counter() - start
    return suite


def row(report: Report) -> str:
    """The report's line of the table under HEADINGS."""
    counts = [report.count(what) for what in COUNTS]
    outcome = "ok" if report.ok else "WRONG"
    return _ROW.format(
        report.title, len(report.tensors), *counts, f"{report.worst:.1e}", f"{report.seconds:.2f}", outcome
    )


def all_built_in() -> list[Job]:
    """Every case of every layer, loss and penalty."""
    return [_of_case(case) for case in CASES]


def built_in(name: str) -> list[Job]:
    """The cases of one of them, by its name in a config."""
    found = [_of_case(case) for case in CASES if case.name == name]
    if not found:
        for kind, table in BUILT_IN.items():
            if name in table:
                raise UsageError(
                    f"{name} is {article(kind)}, which has no gradients to check", "layers, losses and penalties do"
                )
        names = sorted({case.name for case in CASES})
        hint = did_you_mean(name, names)
        hint = hint if hint.startswith("did you mean") else "`layernet layers` lists them"
        raise UsageError(f"there is no built-in layer, loss or penalty called {name!r}", hint)
    return found


def of_layer(layer: Layer, shape: Sequence[int]) -> Job:
    """A layer held to the whole contract, for one input shape."""
    return Job(type(layer).__name__, lambda progress=None, **options: inspect_layer(layer, shape, **options))


def of_loss(loss: Loss | Penalty, shape: Sequence[int] = (), targets: str = "") -> Job:
    """A loss for outputs of a shape (without N) and targets of a kind of `TARGETS`; a penalty takes neither."""
    make = None if isinstance(loss, Penalty) else TARGETS[targets]
    case = Case(type(loss).__name__, lambda: loss, tuple(shape), targets=make)
    return _of_case(case)


def of_config(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """A config: every layer alone, then the whole net with its objectives."""

    def check(progress: Progress | None = None, **options: Any) -> Report:
        from layernet.config.experiment import load_config
        from layernet.testing.configcheck import check_config

        return check_config(load_config(path, list(overrides)), progress=progress, **options)

    return Job(Path(path).name, check)


def _of_case(case: Case) -> Job:
    def check(progress: Progress | None = None, **options: Any) -> Report:
        target = case.make()
        if isinstance(target, Layer):
            return inspect_layer(target, case.shape, **{**case.options, **options})
        report = inspect_loss(target, case.shape, case.targets, **{**case.options, **options})
        report.title = case.label
        return report

    return Job(case.label, check)
