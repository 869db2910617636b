"""Schedules: the factor that multiplies the learning rate, a pure function of the step (but for `Plateau`)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from layernet.core.configurable import Configurable
from layernet.core.duration import Duration
from layernet.errors import ContractError


class Schedule(Configurable):
    """Base of all schedules. A subclass writes `factor(step)`, and may use `total_steps` and `warmup_steps` in it.

    All but OneCycle take `warmup`: for that long the factor grows linearly, (step + 1) / warmup_steps, and `factor`
    takes over from there. Steps are optimizer updates and count from 0, the start of training.

    One that follows what is measured writes `observe` too, and takes `watch: str = "auto"`, the column of metrics.csv
    that it follows, and `mode: str = "auto"`, which becomes `min` or `max`: a config puts names in the place of `auto`.
    """

    warmup: Duration | None = None
    watch: str | None = None
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

    def observe(self, row: Mapping[str, Any]) -> None:
        """Take notice of an evaluation: `row` is a line of metrics.csv. What follows holds from `row["step"]` on.

        A resumed run calls it with every row so far, in order. So a schedule has no state but what rows tell.
        """

    def progress(self, step: int) -> float:
        """The share of training that is done, counted from the end of the warm-up: 0..1, and 1 beyond the end."""
        return min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))

    def steps(self, duration: Duration) -> int:
        """A duration in steps, at least 1."""
        return max(1, duration.steps(self._steps_per_epoch))


class Constant(Schedule):
    """1, the learning rate as it is given.

    As with every schedule that has `warmup`, the factor first grows linearly for that long: (step + 1) / warmup, in
    steps from 0.
    """

    def __init__(self, warmup: Duration | None = None) -> None:
        self.warmup = check_duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return 1.0


class Step(Schedule):
    """gamma ^ floor(t / every): lower by the factor `gamma` at the end of each stretch `every`.

    t counts from the start of training, warm-up included. As torch's StepLR.
    """

    def __init__(self, every: Duration, gamma: float = 0.1, warmup: Duration | None = None) -> None:
        self.every, self.gamma, self.warmup = _required("every", every), _gamma(gamma), check_duration("warmup", warmup)

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
        self.gamma, self.warmup = _gamma(gamma), check_duration("warmup", warmup)

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
        self.gamma, self.every, self.warmup = _gamma(gamma), _required("every", every), check_duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return float(self.gamma ** ((step - self.warmup_steps) / self.steps(self.every)))


class Cosine(Schedule):
    """m + (1 - m) (1 + cos(pi t / T)) / 2 with m = `min_factor`: half a cosine from 1 to m.

    t counts from the end of the warm-up, T is from there to the end of training; beyond it stays m. As torch's
    CosineAnnealingLR, stepped every update (Loshchilov and Hutter 2017, arXiv:1608.03983).
    """

    def __init__(self, min_factor: float = 0.0, warmup: Duration | None = None) -> None:
        self.min_factor, self.warmup = _share("min_factor", min_factor), check_duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return self.min_factor + (1.0 - self.min_factor) * 0.5 * (1.0 + math.cos(math.pi * self.progress(step)))


class Polynomial(Schedule):
    """m + (1 - m) (1 - t / T)^power with m = `min_factor`; power 1 is a straight line.

    t counts from the end of the warm-up, T is from there to the end of training; beyond it stays m. As Caffe's `poly`
    with max_iter the end of training, and torch's PolynomialLR.
    """

    def __init__(self, power: float = 1.0, min_factor: float = 0.0, warmup: Duration | None = None) -> None:
        self.power, self.min_factor = _positive("power", power), _share("min_factor", min_factor)
        self.warmup = check_duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return float(self.min_factor + (1.0 - self.min_factor) * (1.0 - self.progress(step)) ** self.power)


class Inv(Schedule):
    """(1 + gamma t)^(-power), t in steps from the end of the warm-up: Caffe's `inv`."""

    def __init__(self, gamma: float, power: float = 0.75, warmup: Duration | None = None) -> None:
        self.gamma, self.power = _gamma(gamma), _positive("power", power)
        self.warmup = check_duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return float((1.0 + self.gamma * (step - self.warmup_steps)) ** -self.power)


class SigmoidDecay(Schedule):
    """1 / (1 + exp(gamma (t - at))): from near 1 to near 0 around the time `at`, the faster the larger gamma.

    t counts steps from the start of training, warm-up included. Caffe's `sigmoid` with its stepsize as `at` and its
    gamma with the other sign (there a negative one decays).
    """

    def __init__(self, gamma: float, at: Duration, warmup: Duration | None = None) -> None:
        self.gamma, self.at, self.warmup = _gamma(gamma), _required("at", at), check_duration("warmup", warmup)

    def factor(self, step: int) -> float:
        return 0.5 * (1.0 - math.tanh(0.5 * self.gamma * (step - self.steps(self.at))))


class Decay(Schedule):
    """From 1 to 1 / `by` over all of training, in the form: cuda-convnet's `linear`, `exp`, `dexp[base; by; steps]`.

    `linear` is 1 - p + p / by, `exp` is by^(-p), and `dexp` is that in `steps` level stairs, the first at 1, the last
    at 1 / by. p is the share of training that is done, counted from the end of the warm-up. As cuda-convnet2's lr.cu,
    where a stair includes its end; its base is our `lr`.
    """

    def __init__(
        self,
        form: Literal["linear", "exp", "dexp"],
        by: float,
        steps: int | None = None,
        warmup: Duration | None = None,
    ) -> None:
        if form not in ("linear", "exp", "dexp"):
            raise ValueError(f"form must be linear, exp or dexp, got {form!r}")
        if not 1.0 <= by < math.inf:
            raise ValueError(f"by must be a finite number of at least 1, got {by}")
        if (form == "dexp") != (steps is not None) or (steps is not None and steps < 2):
            raise ValueError(f"dexp takes steps, at least 2, and no other form does: got {form} and {steps}")
        self.form, self.by, self.stairs, self.warmup = form, by, steps, check_duration("warmup", warmup)

    def factor(self, step: int) -> float:
        progress = self.progress(step)
        if self.form == "linear":
            return 1.0 - progress + progress / self.by
        if self.stairs is not None:
            # quotients, so that a step exactly at an end compares as equal to it
            ends = [(stair + 1) / self.stairs for stair in range(self.stairs)]
            progress = bisect.bisect_left(ends, progress) / (self.stairs - 1)
        return float(self.by**-progress)


class OneCycle(Schedule):
    """From 1 / div_factor up to 1 within the share `pct_start` of training, then down to 1 / (div_factor final).

    Final is `final_div_factor`. Both ways go along half a cosine, or straight (`linear`); `lr` is the peak. As torch's
    OneCycleLR without its cycle of momenta (Smith and Topin 2018, arXiv:1708.07120). It has no other warm-up.
    """

    def __init__(
        self,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be cos or linear, got {anneal_strategy!r}")
        self.pct_start, self.anneal_strategy = _share("pct_start", pct_start), anneal_strategy
        self.div_factor = _positive("div_factor", div_factor)
        self.final_div_factor = _positive("final_div_factor", final_div_factor)

    def factor(self, step: int) -> float:
        low, last = 1.0 / self.div_factor, self.total_steps - 1
        peak = self.pct_start * self.total_steps - 1  # as torch: it may lie between two steps, or before the first
        if step <= peak:
            return self._between(low, 1.0, step / peak if peak else 1.0)
        share = min(1.0, (step - peak) / (last - peak)) if last > peak else 1.0
        return self._between(1.0, low / self.final_div_factor, share)

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "cos":
            share = 0.5 * (1.0 - math.cos(math.pi * share))
        return start + (end - start) * share


class CosineRestarts(Schedule):
    """m + (1 - m) (1 + cos(pi t / T)) / 2 with m = `min_factor`, begun anew whenever T is over.

    The first T is `period`, each later one is `mult` times as long. t counts from the end of the warm-up. As torch's
    CosineAnnealingWarmRestarts, stepped every update (Loshchilov and Hutter 2017, arXiv:1608.03983).
    """

    def __init__(
        self, period: Duration, mult: int = 1, min_factor: float = 0.0, warmup: Duration | None = None
    ) -> None:
        if mult < 1:
            raise ValueError(f"mult must be at least 1, got {mult}")
        self.period, self.mult, self.min_factor = _required("period", period), mult, _share("min_factor", min_factor)
        self.warmup = check_duration("warmup", warmup)

    def factor(self, step: int) -> float:
        done, length = step - self.warmup_steps, self.steps(self.period)
        if self.mult == 1:
            done %= length
        while done >= length:
            done, length = done - length, length * self.mult
        return self.min_factor + (1.0 - self.min_factor) * 0.5 * (1.0 + math.cos(math.pi * done / length))


def check_duration(name: str, value: Duration | str | None) -> Duration | None:
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
    return _positive("gamma", gamma)


def _positive(name: str, value: float) -> float:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must lie in 0..1, got {value}")
    return value
