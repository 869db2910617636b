"""A config file, checked and made into the parts of an experiment. Reads no data and makes no arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from layernet.config import checks
from layernet.config.build import Builder, ObjectivePart, Source, SourcePart
from layernet.config.lookup import Lookup
from layernet.config.marks import Document, dump, parse
from layernet.config.overrides import Overrides, apply
from layernet.config.schema import AsPart, Section, schema_of
from layernet.core.duration import Duration
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.data.dataset import Dataset
from layernet.data.transforms import Transform
from layernet.errors import ConfigError, DataError, Mark, Problem, did_you_mean
from layernet.losses import Objective
from layernet.metrics import Metric
from layernet.optim.optimizers import Optimizer
from layernet.optim.schedules import Constant, Schedule

VERSION = 1
"""Of the config's dialect: what `layernet: 1` in a config says."""
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class DataSection(Section):
    """`data:`."""

    train: SourcePart
    batch_size: int
    val: SourcePart | None = None
    test: SourcePart | None = None
    shuffle: bool = True
    drop_last: bool = False
    eval_batch_size: int | None = None
    prefetch: bool = True

    def __post_init__(self) -> None:
        _at_least_one(batch_size=self.batch_size, eval_batch_size=self.eval_batch_size)


@dataclass(frozen=True)
class NetSection(Section):
    """`net:`."""

    input: list[int]
    layers: list[Layer]

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.input):
            raise ValueError(f"input must be sizes of at least 1, without the batch, got {self.input}")
        if not self.layers:
            raise ValueError("layers is empty")


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """`train.checkpoint:`: when `last` is saved, how many are kept, and by what `best` is chosen.

    `best` is a name like `val.accuracy`, or None; `auto` in a config is the first metric on val (without metrics its
    loss), and None without val.
    """

    every: Duration = Duration(1, "epochs")
    keep: int = 2
    best: str | None = "auto"

    def __post_init__(self) -> None:
        _at_least_one(keep=self.keep, every=self.every.count)


@dataclass(frozen=True)
class TrainConfig(Section):
    """`train:`: how long, and what happens how often. Either `epochs` or `steps` is given."""

    epochs: int | None = None
    steps: int | None = None
    eval_every: Duration = Duration(1, "epochs")
    log_every: Duration = Duration(50, "steps")
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("train needs one of 'epochs' and 'steps'")
        _at_least_one(epochs=self.epochs, steps=self.steps, eval_every=self.eval_every.count, log_every=self.log_every.count)

    def total_steps(self, steps_per_epoch: int) -> int:
        """The number of optimizer updates."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch


@dataclass(frozen=True)
class RootSection(Section):
    """The whole config."""

    data: DataSection
    net: NetSection
    loss: ObjectivePart | list[ObjectivePart]
    optimizer: Optimizer
    train: TrainConfig
    layernet: Literal[1] = 1
    seed: int = 0
    device: str = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    metrics: Metric | list[Metric] = ()  # type: ignore[assignment]
    schedule: Schedule = Constant()
    callbacks: list[Annotated[Any, AsPart("callback")]] = ()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be between 0 and 2**63 - 1, got {self.seed}")


@dataclass(frozen=True)
class DataConfig:
    """The data of an experiment. `val` is a data set, or the fraction of `train` that is set apart for it.

    `transforms` has a list for each split that is there: `train`, `val`, `test`; where a split lists none of its own,
    the list of train itself.
    """

    train: Dataset
    val: Dataset | float | None
    test: Dataset | None
    transforms: dict[str, list[Transform]]
    batch_size: int
    eval_batch_size: int
    shuffle: bool
    drop_last: bool
    prefetch: bool

    def all_transforms(self) -> list[Transform]:
        """Every transform of every split once, in a fixed order: the order in which checkpoints keep them."""
        return list(dict.fromkeys(t for transforms in self.transforms.values() for t in transforms))


@dataclass
class ExperimentConfig:
    """A config that holds together: everything in it checked and made, nothing read, no arrays.

    `net` is built and not bound; `objectives` have their log names. `text` is the config as given, `resolved` plain data
    with every default filled in, `files` the user's Python files that it names, `layer_marks` where each layer stands.
    """

    path: FilePath | None
    text: str
    resolved: dict[str, Any]
    files: list[FilePath]
    seed: int
    device: str
    dtype: str
    net: Net
    layer_marks: dict[Layer, Mark]
    objectives: list[Objective]
    metrics: list[Metric]
    optimizer: Optimizer
    schedule: Schedule
    data: DataConfig
    train: TrainConfig
    callbacks: list[Any]
    document: Document
    name: str
    """What runs of it are called: the file's name without suffix."""

    def dump(self) -> str:
        """The resolved config as YAML, which loads to the same experiment. User files are named as `./name.py`."""
        return dump(self.resolved)


def load_config(path: str | FilePath, overrides: Overrides = ()) -> ExperimentConfig:
    """From a config file; `overrides` as {"train.epochs": 2} or ["train.epochs=2"].

    Raises ConfigError with every problem found, each with its place.
    """
    file = FilePath(path)
    return _load(_read(file), str(file), file.parent, file, overrides)


def load_config_text(text: str, name: str = "config", folder: str | FilePath = ".", overrides: Overrides = ()) -> ExperimentConfig:
    """From the text of a config; `name` stands for the file in messages, `./file.py` is looked for in `folder`."""
    return _load(text, name, FilePath(folder), None, overrides)


def check_data(config: ExperimentConfig) -> None:
    """Raise ConfigError where the files of a data set are absent or plainly damaged. Reads no data."""
    problems = []
    for split in ("train", "val", "test"):
        dataset = getattr(config.data, split)
        if isinstance(dataset, Dataset):
            try:
                dataset.check()
            except (DataError, OSError) as error:
                mark = config.document.mark(("data", split))
                problems.append(Problem(str(error), f"data.{split}", mark))
    if problems:
        raise ConfigError(problems)


def _read(file: FilePath) -> str:
    start = Mark(str(file), 1, 1)
    try:
        with open(file, "rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        near = [str(other) for other in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        hint = did_you_mean(str(file), near)
        raise ConfigError(
            [Problem(f"cannot read {file}: {error.strerror}", hint=hint if hint.startswith("did you") else "")]
        ) from None
    if len(content) > _MAX_BYTES:
        raise ConfigError([Problem(f"the file is larger than {_MAX_BYTES} bytes", mark=start)])
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError([Problem("the file is UTF-16", mark=start, hint="save it as UTF-8")])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        mark = Mark(str(file), before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise ConfigError([Problem(f"the byte 0x{content[error.start]:02x} is not UTF-8", mark=mark, hint="save the file as UTF-8")]) from None


def _load(text: str, name: str, folder: FilePath, path: FilePath | None, overrides: Overrides) -> ExperimentConfig:
    document = parse(text, name)
    apply(document, overrides)
    builder = Builder(document, Lookup(folder))
    schema = schema_of(RootSection)
    arguments, complete = builder.arguments(schema, document.data, (), "the config")
    root = {name: built.value for name, built in arguments.items()}
    if complete:
        root = vars(builder.construct(RootSection, arguments, ()) or RootSection(**{**root, "device": "auto", "seed": 0}))
    parts = checks.check(builder, root)
    if builder.problems:
        raise ConfigError(_in_order(builder.problems, name))
    plain = builder.plain_of(schema, arguments)
    order = ["layernet", "seed", "device", "dtype", "data", "net", "loss", "metrics", "optimizer", "schedule", "train", "callbacks"]
    resolved = {key: plain[key] for key in order}
    train = root["train"]
    return ExperimentConfig(
        path=path,
        text=text,
        resolved=checks.fill_in(resolved, parts),
        files=list(builder.lookup.files),
        seed=root["seed"],
        device=root["device"],
        dtype=root["dtype"],
        net=parts.net,
        layer_marks=parts.layer_marks,
        objectives=parts.objectives,
        metrics=parts.metrics,
        optimizer=root["optimizer"],
        schedule=root["schedule"],
        data=_data(root["data"]),
        train=checks.with_best(train, parts.best),
        callbacks=list(root["callbacks"]),
        document=document,
        name=path.stem if path else FilePath(name).stem,
    )
