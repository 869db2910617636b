"""What a config consists of: the mappings without a `type`, as classes whose signatures are their schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from layernet.config.entries import MeasurePart, ObjectivePart, SourcePart
from layernet.config.schema import AsPart, Section, expected, spelled
from layernet.core.duration import Duration, Interval
from layernet.core.layer import Layer
from layernet.optim.averaging import Average
from layernet.optim.optimizer import Optimizer
from layernet.optim.schedules import Constant, Schedule

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
_CONSTANT = Constant()
_DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise expected("auto, cpu, cuda or cuda:N", ("auto", "cpu", "cuda"))
    return name


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """`data:`."""

    train: SourcePart
    """The training set."""
    val: SourcePart | None = None
    """The set that is measured during training, or `{fraction: f}` of train; `best` is chosen by it."""
    test: SourcePart | None = None
    """The set that is measured once, at the end."""
    batch_size: Count
    """Examples in an update; with `train.accumulate` in a micro-batch."""
    eval_batch_size: Count | None = None
    """Examples in a pass of evaluation; null: `batch_size`."""
    shuffle: bool = True
    """Whether every epoch reads train in an order of its own."""
    drop_last: bool = False
    """Whether a last batch that is short is left out, of train alone."""
    prefetch: bool = True
    """Whether a thread makes batches ahead. Changes no result."""


@dataclass(frozen=True, kw_only=True)
class NetSection(Section):
    """`net:`."""

    input: list[Count]
    """The shape of one example, without N: `[28, 28, 1]`."""
    layers: list[Layer]
    """The layers in order, at least one."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must hold at least one layer")


@dataclass(frozen=True, kw_only=True)
class WarmStartConfig(Section):
    """`warm_start:`."""

    from_: str
    """A run directory (its checkpoint `best`, else `last`) or a checkpoint file."""
    include: str | list[str] = "*"
    """Patterns of the paths whose values are taken: each must be there in the same shape."""
    exclude: str | list[str] | None = None
    """Patterns of those that start from the seed all the same."""

    def patterns(self, key: str) -> list[str]:
        """`include` or `exclude` as a list."""
        given = getattr(self, key)
        return [given] if isinstance(given, str) else list(given or [])

    def chosen(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths whose values are taken."""

        def matches(path: str, key: str) -> bool:
            return any(fnmatchcase(path, pattern) for pattern in self.patterns(key))

        return [path for path in paths if matches(path, "include") and not matches(path, "exclude")]


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Section):
    """`train.checkpoint:`: when `last` is saved, how many are kept, and by what `best` is chosen.

    `best` is a name like `val.accuracy`, or None; `auto` in a config is the first metric on val (without metrics its
    loss), and None without val.
    """

    every: Interval = Interval(1, "epochs")
    """How often `last` is saved; also in minutes: `30 minutes`."""
    keep: Count = 2
    """Above 1, so many of the newest also stay, as `step-N`."""
    best: str | None = "auto"
    """What `best` is chosen by: `val.` and a metric, an objective or `loss`; null: by nothing."""

    @property
    def files(self) -> int:
        """How many files it comes to: `last` is that of the newest `step-N`."""
        return self.keep + (self.best is not None)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """`train:`: how long, and what happens how often. Either `epochs` or `steps` is given."""

    epochs: Count | None = None
    """Passes over train."""
    steps: Count | None = None
    """Updates. One of `epochs` and `steps` is given."""
    accumulate: Count = 1
    """Micro-batches of `data.batch_size` in an update, as if they were one batch; steps count updates."""
    clip_norm: Positive | None = None
    """The L2 norm that the gradient of all trained parameters together is scaled to where it is longer."""
    clip_value: Positive | None = None
    """What each element of the gradient is cut to, above and below 0."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is NaN or infinite does: it ends the run, or its update is left out and counted."""
    eval_every: Duration = Duration(1, "epochs")
    """How often val is measured: a row of metrics.csv."""
    log_every: Duration = Duration(50, "steps")
    """How often a line of progress is written."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """What is saved."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            both = self.epochs is not None
            cure = "set the other to null" if both else "for example epochs: 10"
            raise ValueError(
                f"train needs one of 'epochs' and 'steps', {'both are' if both else 'none is'} given: {cure}"
            )
        if self.clip_norm is not None and self.clip_value is not None:
            raise ValueError("clip_value is given beside clip_norm; set one of them to null")

    def total_steps(self, steps_per_epoch: int) -> int:
        """The number of optimizer updates."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class RootSection(Section):
    """The whole config."""

    layernet: Literal[1] = 1
    """The version of this dialect."""
    extends: str | list[str] | None = None
    """A config, or several, that this one is laid over: a path from this file's folder; of several, the later wins."""
    vars: dict[str, Any] | None = None
    """Values with names of your own: `${name}` stands for one, as a value or inside text."""
    seed: Annotated[int, Field(ge=0)] = 0
    """What every random number follows from, at least 0."""
    device: Annotated[str, AfterValidator(_device), spelled(_DEVICE, "auto, cpu, cuda or cuda:N")] = "auto"
    """`cpu` (numpy), `cuda` or `cuda:N` (cupy), `auto`: cuda where there is one."""
    dtype: Literal["float32", "float64"] = "float32"
    """The float type of all that is computed."""
    kernels: Literal["auto", "numpy", "numba"] = "auto"
    """The CPU's kernels: `numpy`, `numba` (compiled, of float32), `auto`: numba where layernet[fast] is installed."""
    precise: bool = False
    """Whether kernels that round more than sums must are left out (Winograd's filtering)."""
    threads: Count | None = None
    """Threads that kernels run on; null: one for each core."""
    plan: Literal["on", "off"] | bool = "on"
    """Whether neighbours in the net run as one step where they can: the same training within rounding, in less time."""
    data: DataSection
    """What is learned from."""
    net: NetSection
    """The layers."""
    loss: ObjectivePart | list[ObjectivePart]
    """What is made small: the weighted sum of all of them."""
    metrics: MeasurePart | list[MeasurePart] = ()
    """What is measured on the outputs beside the loss."""
    optimizer: Optimizer
    """What moves the parameters."""
    schedule: Schedule = _CONSTANT
    """The factor on the learning rate, by step."""
    average: Average | None = None
    """A mean of the weights over the steps, which is evaluated and saved instead of them."""
    warm_start: WarmStartConfig | None = None
    """Parameters and running statistics that start with the values of another run."""
    train: TrainConfig
    """How long, and what happens how often."""
    callbacks: list[Annotated[Any, AsPart("callback")]] = ()  # type: ignore[assignment]
    """Your own code around the loop, called in this order."""
