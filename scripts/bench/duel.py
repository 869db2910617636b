"""Two or more processes timed in turn: the arithmetic and the order of a fair comparison. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

from bench.machine import with_threads

ROUND = 0.3
"""Seconds of steps in a round."""

AGREEMENT = 0.15
"""How far the ratios of medians and of minima may differ before more rounds are run."""


class WorkerFailed(Exception):
    """A worker ended before it answered; what it said is on standard error."""


@dataclass
class Worker:
    """A process of bench/worker.py, started when made. `label` is what the figures call it."""

    label: str
    spec: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        begin = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), json.dumps(self.spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **with_threads(self.spec["threads"]), **self.environment},
        )
        answer = self._answer()
        self.first_step = time.perf_counter() - begin
        """Seconds from the start of the process to the end of its first step."""
        self.facts: dict[str, Any] = answer["facts"]
        self.medians: list[float] = []
        self.least = float("inf")
        self.peak: float = answer["peak"]

    def round(self, seconds: float = ROUND) -> None:
        """Let it run steps for so long; note their median, the fastest, and the memory."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"seconds": seconds}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.medians.append(median(answer["times"]))
        self.least = min(self.least, *answer["times"])
        self.peak = answer["peak"]

    @property
    def typical(self) -> float:
        """The median of its rounds' medians, in seconds a step."""
        return median(self.medians)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # waits
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(f"{self.label} on {self.spec['net']}, {self.spec['kind']}: exit {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def duel(ours: Worker, others: list[Worker], rounds: int, patience: int = 3, seconds: float = ROUND) -> Worker:
    """Rounds in turn; the fastest of the others.

    Where medians and minima tell different tales, the machine was disturbed: more rounds are run, `patience` times as
    many at most.
    """
    for done in range(1, rounds * patience + 1):
        for worker in (ours, *others):
            worker.round(seconds)
        best = min(others, key=lambda worker: worker.typical)
        if done % rounds == 0 and agree(ours, best):
            break
    return best


def agree(ours: Worker, other: Worker) -> bool:
    """Whether the ratio of medians is that of minima, within AGREEMENT."""
    by_median, by_minimum = ours.typical / other.typical, ours.least / other.least
    return max(by_median, by_minimum) / min(by_median, by_minimum) <= 1 + AGREEMENT
