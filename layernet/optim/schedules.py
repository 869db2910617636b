"""Schedules: the factor that multiplies the learning rate, a pure function of the step."""

from __future__ import annotations

import bisect
import math
from typing import Self

from layernet.core.configurable import Configurable
from layernet.core.duration import Duration
from layernet.errors import ContractError


class Schedule(Configurable):
    """Base of all schedules. A subclass writes `factor(step)`, and may use `total_steps` and `warmup_steps` in it.

    All take `warmup`: for that long the factor grows linearly, (step + 1) / warmup_steps, and `factor` takes over from
    there. Steps are optimizer updates and count from 0, the start of training.
    """

    warmup: Duration | None = None
    total_steps: int
    warmup_steps: int

    def bind(self, total_steps: int, steps_per_epoch: int) -> Self:
        """Say how long training is, which turns durations into steps. Returns self."""
        self._steps_per_epoch = steps_per_epoch
        self.total_steps = total_steps
        self.warmup_steps = self.steps(self.warmup) if self.warmup is not None else 0
        return self

    def __call__(self, step: int) -> float:
        """The factor for update number `step`."""
        if "warmup_steps" not in self.__dict__:
            raise ContractError(
                f"{self!r} does not know how long training is", "call schedule.bind(total_steps, steps_per_epoch) first"
            )
        return (step + 1) / self.warmup_steps if step < self.warmup_steps else self.factor(step)

    def factor(self, step: int) -> float:
        """The factor after the warm-up."""
        raise NotImplementedError(f"{type(self).__name__} has no factor")

    def steps(self, duration: Duration) -> int:
        """A duration in steps, at least 1."""
        return max(1, duration.steps(self._steps_per_epoch))


class Constant(Schedule):
    """1."""

    def __init__(self, warmup: Duration | None = None) -> None:
        self.warmup = _duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return 1.0


class Step(Schedule):
    """gamma ^ floor(t / every): lower by the factor `gamma` at the end of each stretch `every`.

    t counts from the start of training, warm-up included. As torch's StepLR.
    """

    def __init__(self, every: Duration, gamma: float = 0.1, warmup: Duration | None = None) -> None:
        self.every, self.gamma, self.warmup = _required("every", every), _gamma(gamma), _duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return float(self.gamma ** (step // self.steps(self.every)))


class MultiStep(Schedule):
    """gamma ^ (how many of the times `at` have come): lower by the factor `gamma` at each of them.

    Times count from the start of training, warm-up included. As torch's MultiStepLR.
    """

    def __init__(self, at: list[Duration], gamma: float = 0.1, warmup: Duration | None = None) -> None:
        if not at:
            raise ValueError("at needs at least one duration, like [80 epochs, 120 epochs]")
        self.at = [_required("at", duration) for duration in at]
        self.gamma, self.warmup = _gamma(gamma), _duration("warmup", warmup)

    def bind(self, total_steps: int, steps_per_epoch: int) -> Self:
        super().bind(total_steps, steps_per_epoch)
        self._milestones = sorted(self.steps(duration) for duration in self.at)
        return self

    def factor(self, step: int) -> float:
        return float(self.gamma ** bisect.bisect_right(self._milestones, step))


class Exponential(Schedule):
    """gamma ^ (t / every): smoothly lower by the factor `gamma` over each stretch `every`.

    t counts from the end of the warm-up. At whole epochs it equals torch's ExponentialLR; `Step` with the same
    arguments is that schedule's staircase.
    """

    def __init__(self, gamma: float, every: Duration = Duration(1, "epochs"), warmup: Duration | None = None) -> None:
        self.gamma, self.every, self.warmup = _gamma(gamma), _required("every", every), _duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return float(self.gamma ** ((step - self.warmup_steps) / self.steps(self.every)))


class Cosine(Schedule):
    """m + (1 - m) (1 + cos(pi t / T)) / 2 with m = `min_factor`: half a cosine from 1 to m (arXiv:1608.03983).

    t counts from the end of the warm-up, T is from there to the end of training; beyond it stays m. As torch's
    CosineAnnealingLR, stepped every update.
    """

    def __init__(self, min_factor: float = 0.0, warmup: Duration | None = None) -> None:
        if not 0.0 <= min_factor <= 1.0:
            raise ValueError(f"min_factor must lie in 0..1, got {min_factor}")
        self.min_factor, self.warmup = min_factor, _duration("warmup", warmup)

    def factor(self, step: int) -> float:
        length = max(1, self.total_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / length)
        return self.min_factor + (1.0 - self.min_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _duration(name: str, value: Duration | str | None) -> Duration | None:
    """None or a duration, given as one or as text ("5 epochs")."""
    return None if value is None else _required(name, value)


def _required(name: str, value: Duration | str) -> Duration:
    duration = Duration.parse(value) if isinstance(value, str) else value
    if not isinstance(duration, Duration):
        raise ValueError(f"{name} must be a duration like '5 epochs' or '300 steps', got {value!r}")
    if not duration.count > 0:
        raise ValueError(f"{name} must be longer than nothing, got {duration}")
    return duration


def _gamma(gamma: float) -> float:
    if not 0.0 < gamma < math.inf:
        raise ValueError(f"gamma must be positive, got {gamma}")
    return gamma
