"""The schedule that follows what a run measures: lower where a value has stopped getting better."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from layernet.core.duration import Duration
from layernet.errors import ContractError, UsageError, did_you_mean
from layernet.optim.schedules import Schedule, check_duration


class Best:
    """The best of the values seen, and whether a new one beats it by more than a threshold.

    With `threshold_mode` rel a value beats b beyond b (1 - threshold) for mode min, b (1 + threshold) for mode max;
    with abs beyond b - threshold, b + threshold. NaN beats nothing.
    """

    def __init__(self, mode: Literal["min", "max"], threshold: float, threshold_mode: Literal["rel", "abs"]) -> None:
        self.sign = -1.0 if mode == "min" else 1.0
        self.threshold, self.relative = threshold, threshold_mode == "rel"
        self.value = -self.sign * math.inf

    def improved(self, value: float) -> bool:
        """Whether the value is the new best."""
        if math.isinf(self.value):
            bound = self.value
        elif self.relative:
            bound = self.value * (1.0 + self.sign * self.threshold)
        else:
            bound = self.value + self.sign * self.threshold
        better = value > bound if self.sign > 0 else value < bound
        if better:
            self.value = value
        return better


class Plateau(Schedule):
    """Times `factor` whenever more than `patience` evaluations in a row have not made the watched value better.

    `watch` is a column of metrics.csv such as `val.loss`; in a config, `auto` is what `checkpoint.best: auto` is: the
    first metric on val, `val.loss` without metrics. `mode` says whether less is better (`min`) or more (`max`); in a
    config, `auto` is min for losses, max for metrics. Better is what goes beyond the best so far by more than
    `threshold`, a share of the best (`rel`) or an amount (`abs`). The `cooldown` evaluations after each lowering do not
    count as bad ones, and those within the warm-up do not count at all. It does not go below `min_factor`. As torch's
    ReduceLROnPlateau with eps 0, stepped every evaluation.

    Raises UsageError when an evaluation has no such value.
    """

    watch: str

    def __init__(
        self,
        mode: Literal["auto", "min", "max"] = "auto",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_factor: float = 0.0,
        watch: str = "auto",
        warmup: Duration | None = None,
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be auto, min or max, got {mode!r}")
        if not 0.0 < factor < 1.0:
            raise ValueError(f"factor must lie between 0 and 1, got {factor}")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold_mode must be rel or abs, got {threshold_mode!r}")
        if not 0.0 <= threshold < math.inf:
            raise ValueError(f"threshold must be finite and not negative, got {threshold}")
        for name, count in (("patience", patience), ("cooldown", cooldown)):
            if count < 0:
                raise ValueError(f"{name} must be at least 0, got {count}")
        if not 0.0 <= min_factor <= 1.0:
            raise ValueError(f"min_factor must lie in 0..1, got {min_factor}")
        self.mode, self.gamma, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.min_factor, self.watch = min_factor, watch
        self.warmup = check_duration("warmup", warmup)

    def bind(self, total_steps: int, steps_per_epoch: int) -> Self:
        super().bind(total_steps, steps_per_epoch)
        if self.mode == "auto" or self.watch == "auto":
            raise ContractError(
                f"{self!r} does not know what it follows",
                "outside a config give watch, as val.loss, and mode, min or max",
            )
        self._best = Best(self.mode, self.threshold, self.threshold_mode)
        self._bad = self._cooling = 0
        self._factors, self._since = [1.0], list[int]()
        return self

    def observe(self, row: Mapping[str, Any]) -> None:
        if self.watch not in row:
            measured = [name for name in row if name.startswith("val.")]
            raise UsageError(
                f"{type(self).__name__} follows {self.watch!r}, which is not measured",
                did_you_mean(self.watch, measured),
            )
        if row["step"] < self.warmup_steps:
            return
        self._bad = 0 if self._best.improved(row[self.watch]) else self._bad + 1
        if self._cooling:
            self._cooling, self._bad = self._cooling - 1, 0
        if self._bad > self.patience:
            self._bad, self._cooling = 0, self.cooldown
            self._factors.append(max(self._factors[-1] * self.gamma, self.min_factor))
            self._since.append(row["step"])

    def factor(self, step: int) -> float:
        return self._factors[bisect.bisect_right(self._since, step)]
