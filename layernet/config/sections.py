"""What a config consists of: the mappings without a `type`, as classes whose signatures are their schemas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from layernet.config.entries import ObjectivePart, SourcePart
from layernet.config.schema import AsPart, Section, expected
from layernet.core.duration import Duration
from layernet.core.layer import Layer
from layernet.metrics import Metric
from layernet.optim.averaging import Average
from layernet.optim.optimizer import Optimizer
from layernet.optim.schedules import Constant, Schedule

Count = Annotated[int, Field(ge=1)]
_CONSTANT = Constant()


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise expected("auto, cpu, cuda or cuda:N")
    return name


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """`data:`."""

    train: SourcePart
    val: SourcePart | None = None
    test: SourcePart | None = None
    batch_size: Count
    eval_batch_size: Count | None = None
    shuffle: bool = True
    drop_last: bool = False
    prefetch: bool = True


@dataclass(frozen=True, kw_only=True)
class NetSection(Section):
    """`net:`."""

    input: list[Count]
    layers: list[Layer]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must hold at least one layer")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Section):
    """`train.checkpoint:`: when `last` is saved, how many are kept, and by what `best` is chosen.

    `best` is a name like `val.accuracy`, or None; `auto` in a config is the first metric on val (without metrics its
    loss), and None without val.
    """

    every: Duration = Duration(1, "epochs")
    keep: Count = 2
    best: str | None = "auto"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """`train:`: how long, and what happens how often. Either `epochs` or `steps` is given."""

    epochs: Count | None = None
    steps: Count | None = None
    eval_every: Duration = Duration(1, "epochs")
    log_every: Duration = Duration(50, "steps")
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            both = self.epochs is not None
            cure = "set the other to null" if both else "for example epochs: 10"
            raise ValueError(
                f"train needs one of 'epochs' and 'steps', {'both are' if both else 'none is'} given: {cure}"
            )

    def total_steps(self, steps_per_epoch: int) -> int:
        """The number of optimizer updates."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class RootSection(Section):
    """The whole config."""

    layernet: Literal[1] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    device: Annotated[str, AfterValidator(_device)] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    data: DataSection
    net: NetSection
    loss: ObjectivePart | list[ObjectivePart]
    metrics: Metric | list[Metric] = ()  # type: ignore[assignment]
    optimizer: Optimizer
    schedule: Schedule = _CONSTANT
    average: Average | None = None
    train: TrainConfig
    callbacks: list[Annotated[Any, AsPart("callback")]] = ()  # type: ignore[assignment]
