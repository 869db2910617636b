"""A config file, checked and made into the parts of an experiment. Reads no data and makes no arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from layernet.backend import Shape
from layernet.config import checks
from layernet.config.build import Builder
from layernet.config.entries import Source
from layernet.config.inherit import compose
from layernet.config.lookup import Lookup
from layernet.config.marks import Document, dump
from layernet.config.overrides import Overrides, apply
from layernet.config.reading import near, read
from layernet.config.schema import schema_of
from layernet.config.sections import DataSection, RootSection, TrainConfig, WarmStartConfig
from layernet.config.variables import escaped, expand
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.data.dataset import Dataset
from layernet.data.transforms import Transform
from layernet.errors import ConfigError, DataError, Mark, Problem, did_you_mean
from layernet.losses import Objective
from layernet.metrics import Measure
from layernet.optim.averaging import Average
from layernet.optim.optimizer import Optimizer
from layernet.optim.schedules import Schedule

_LANGUAGE = ("extends", "vars")  # keys about the text, which has no need of them once it is resolved


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

    `net` is built and not bound; `objectives` have their log names. `text` is the config as given, `resolved` plain
    data with every default filled in, `layer_marks` where each layer stands.
    """

    path: FilePath | None
    text: str
    resolved: dict[str, Any]
    seed: int
    device: str
    dtype: str
    kernels: str
    precise: bool
    threads: int | None
    net: Net
    layer_marks: dict[Layer, Mark]
    objectives: list[Objective]
    metrics: list[Measure]
    optimizer: Optimizer
    schedule: Schedule
    average: Average | None
    warm_start: WarmStartConfig | None
    data: DataConfig
    train: TrainConfig
    callbacks: list[Any]
    document: Document
    lookup: Lookup
    name: str
    """What runs of it are called: the file's name without suffix."""

    @property
    def files(self) -> dict[str, bytes]:
        """What else was read: the user's Python files imported so far, and the configs that this one extends.

        Their places in a run directory, and the bytes that were read.
        """
        folder = self.path.parent if self.path else FilePath()
        kept = {f"extended/{_inside(file, folder)}": content for file, content in self.document.extended.items()}
        return {**self.lookup.files, **kept}

    def dump(self) -> str:
        """The resolved config as YAML, which loads to the same experiment. User files are named as `./name.py`."""
        return dump(escaped(self.resolved))


def load_config(path: str | FilePath, overrides: Overrides = ()) -> ExperimentConfig:
    """From a config file; `overrides` as {"train.epochs": 2} or ["train.epochs=2"].

    Raises ConfigError with every problem found, each with its place.
    """
    file = FilePath(path)
    return _load(_read(file), str(file), file.parent, file, overrides)


def load_config_text(
    text: str, name: str = "config", folder: str | FilePath = ".", overrides: Overrides = ()
) -> ExperimentConfig:
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
    try:
        return read(file)
    except OSError as error:
        hint = did_you_mean(str(file), [str(file.parent / other) for other in near(file.parent)])
        raise ConfigError(
            [Problem(f"cannot read {file}: {error.strerror}", hint=hint if hint.startswith("did you") else "")]
        ) from None


def _load(text: str, name: str, folder: FilePath, path: FilePath | None, overrides: Overrides) -> ExperimentConfig:
    document = compose(text, name, folder, path)
    apply(document, overrides)
    expand(document)
    builder = Builder(document, Lookup(folder))
    schema = schema_of(RootSection)
    arguments, _ = builder.arguments(schema, document.data, (), "the config")
    root = {**schema.defaults, **{key: built.value for key, built in arguments.items()}}
    if root["kernels"] == "numba" and root["dtype"] != "float32":
        builder.problem(("kernels",), f"kernels numba are of float32, dtype is {root['dtype']}", "use kernels: auto")
    found = _check(builder, root)
    if builder.problems:
        raise ConfigError(_in_order(builder.problems, list(document.folders)))
    resolved = {key: value for key, value in builder.plain_of(schema, arguments).items() if key not in _LANGUAGE}
    _fill_in(resolved, found)
    return ExperimentConfig(
        path=path,
        text=text,
        resolved=resolved,
        seed=root["seed"],
        device=root["device"],
        dtype=root["dtype"],
        kernels=root["kernels"],
        precise=root["precise"],
        threads=root["threads"],
        net=found["net"],
        layer_marks=_layer_marks(builder, root["net"].layers, found["net"]),
        objectives=found["objectives"],
        metrics=[measure for _, measure in checks.placed("metrics", root["metrics"])],
        optimizer=root["optimizer"],
        schedule=_watching(root["schedule"], found["watch"]),
        average=root["average"],
        warm_start=root["warm_start"],
        data=_data(root["data"], found["sources"]),
        train=_with_best(root["train"], found["best"]),
        callbacks=list(map(_watching, root["callbacks"], found["watches"])),
        document=document,
        lookup=builder.lookup,
        name=path.stem if path else FilePath(name).stem,
    )


def _check(builder: Builder, root: dict[str, Any]) -> dict[str, Any]:
    """Run every check whose parts could be made; what the checks found out on the way."""
    found: dict[str, Any] = {"net": None, "sources": {}, "objectives": [], "best": None, "watch": {}, "watches": []}
    data, section = root.get("data"), root.get("net")
    outputs: dict[str, Shape] = {"output": ()}
    complete = False
    right_input = True
    if data is not None:
        splits = {"train": data.train, "val": data.val, "test": data.test}
        found["sources"] = {split: source for split, source in splits.items() if source is not None}
    if data is not None and section is not None:
        right_input = checks.check_shapes(builder, section, found["sources"])
    objectives = checks.placed("loss", root["loss"]) if "loss" in root else []
    found["objectives"] = checks.name_objectives(builder, objectives)
    if section is not None:
        net = found["net"] = checks.build_net(builder, section, right_input, root.get("plan") in ("on", True))
        checks.check_callbacks(builder, net, root["callbacks"])
        if net is not None:
            checks.check_warm_start(builder, net, root["warm_start"])
        if net is not None:
            outputs, complete = checks.outputs_of(net)
            checks.check_objectives(builder, net, objectives, outputs, complete)
            checks.check_groups(builder, net, getattr(root.get("optimizer"), "groups", None))
            if data is not None:
                checks.check_targets(builder, net, objectives, outputs, data.train)
    metrics = checks.check_metrics(builder, checks.placed("metrics", root["metrics"]), outputs, complete)
    if data is not None and "loss" in root:
        val = checks.validation(data.val is not None, metrics, found["objectives"])
        found["watch"] = checks.watch_of(builder, root["schedule"], ("schedule",), val)
        if "train" in root:
            found["best"] = checks.best_of(builder, root["train"].checkpoint.best, val)
        found["watches"] = [
            checks.watch_of(builder, callback, ("callbacks", index), val, found["best"])
            for index, callback in enumerate(root["callbacks"])
        ]
    return found


def _fill_in(resolved: dict[str, Any], found: dict[str, Any]) -> None:
    """The defaults that follow from other parts, and lists where one entry may stand for a list."""
    for key in ("loss", "metrics"):
        if not isinstance(resolved[key], list):
            resolved[key] = [resolved[key]]
    for plain, objective in zip(resolved["loss"], found["objectives"], strict=True):
        plain["name"] = objective.name
    data, checkpoint = resolved["data"], resolved["train"]["checkpoint"]
    data["eval_batch_size"] = data["eval_batch_size"] or data["batch_size"]
    checkpoint["best"] = found["best"]
    if warm := resolved["warm_start"]:
        warm["from"] = str(FilePath(warm["from"]).absolute())
    if found["watch"]:
        resolved["schedule"] |= found["watch"]
    for plain, watch in zip(resolved["callbacks"], found["watches"], strict=True):
        if watch:
            plain |= watch


def _inside(file: FilePath, folder: FilePath) -> str:
    """Where a file goes below a folder that stands for `folder`: `..` becomes `up`."""
    parts = FilePath(os.path.relpath(file, folder)).parts
    return "/".join("up" if part == ".." else part for part in parts)


def _with_best(train: TrainConfig, best: str | None) -> TrainConfig:
    return replace(train, checkpoint=replace(train.checkpoint, best=best))


def _watching(follower: Any, watch: dict[str, str]) -> Any:
    """The schedule or callback with names in the place of its `auto`s."""
    return type(follower)(**{**follower.arguments, **watch}) if watch else follower


def _data(section: DataSection, sources: dict[str, Source]) -> DataConfig:
    transforms = {
        split: (sources["train"].transforms or []) if source.transforms is None else source.transforms
        for split, source in sources.items()
    }
    val, test = section.val, section.test
    return DataConfig(
        train=section.train.dataset,
        val=None if val is None else val.dataset if val.fraction is None else val.fraction,
        test=test.dataset if test is not None else None,
        transforms=transforms,
        batch_size=section.batch_size,
        eval_batch_size=section.eval_batch_size or section.batch_size,
        shuffle=section.shuffle,
        drop_last=section.drop_last,
        prefetch=section.prefetch,
    )


def _layer_marks(builder: Builder, written: list[Layer], net: Net) -> dict[Layer, Mark]:
    """Where each layer stands; the copies that a net puts in the place of `ref` entries, too."""
    paths = dict(builder.layer_paths)
    paths.update({layer: paths[entry] for entry, layer in zip(written, net.layers, strict=True)})
    marks = {layer: builder.document.mark(path) for layer, path in paths.items()}
    return {layer: mark for layer, mark in marks.items() if mark is not None}


def _in_order(problems: list[Problem], files: list[str]) -> list[Problem]:
    """Each problem once, as they come in the texts of the files, the last file first; those of --set come after."""
    order = {file: -index for index, file in enumerate(files)}

    def place(problem: Problem) -> tuple[int, int, int]:
        mark = problem.mark
        return (order.get(mark.file, 1) if mark else 1, mark.line if mark else 0, mark.column if mark else 0)

    return sorted({(p.mark, p.message): p for p in reversed(problems)}.values(), key=place)
