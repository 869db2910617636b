"""What must hold between the parts of a config, each broken rule as a located problem. Reads no data."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from layernet.backend import Shape
from layernet.config.build import Builder
from layernet.config.entries import Source
from layernet.config.lookup import explain
from layernet.config.marks import Path
from layernet.config.sections import NetSection, WarmStartConfig
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.core.sequential import Ref, Sequential
from layernet.data.dataset import Dataset
from layernet.data.npz import Npz
from layernet.data.transforms import Transform
from layernet.errors import ContractError, DataError, LayernetError, ShapeError, UsageError, did_you_mean
from layernet.layers.composite import AuxiliaryHead
from layernet.losses import Loss, Objective, Penalty, named
from layernet.metrics import Measure, accuracy
from layernet.optim.optimizer import NORMS, ONE_AXIS

Placed = list[tuple[Path, Any]]
"""Objects with their places in the config."""


def placed(name: str, value: Any) -> Placed:
    """The entries of a key that takes one entry or a list of them."""
    if isinstance(value, list | tuple):
        return [((name, index), item) for index, item in enumerate(value)]
    return [((name,), value)]


# the net


def build_net(builder: Builder, section: NetSection, right_input: bool, plan: bool = True) -> Net | None:
    """The net; None where it cannot be built, which is noted at the layer.

    Of a wrong input only `check_shapes` speaks: what layers say about it would lead astray.
    """
    try:
        return Net(section.layers, section.input, plan)
    except ShapeError as error:
        layer = error.layer if isinstance(error.layer, Layer) else None
        if right_input or isinstance(layer, Ref):
            _refused(builder, section, layer, error.message, error.hint)
    except LayernetError as error:
        if isinstance(error, ContractError) and isinstance(error.layer, Layer):
            message = error.message.removeprefix(f"{error.layer.label}: ")
            _refused(builder, section, error.layer, message, error.hint)
            return None
        called = [
            path for layer, path in builder.layer_paths.items() if layer.name and repr(layer.name) in error.message
        ]
        place: Path = (*called[-1], "name") if called else ("net", "layers")  # two of one name, in one level of paths
        builder.problem(place, error.message, error.hint)
    except Exception as error:  # a user's build may raise anything
        _refused(builder, section, None, f"build failed: {explain(error)}", "")
    return None


def _refused(builder: Builder, section: NetSection, layer: Layer | None, message: str, hint: str) -> None:
    """A layer that cannot be built: at its place in the config, with what stands before it."""
    paths = {inner: path for path, inner in Sequential(section.layers).walk()}
    if layer not in paths:  # a block that failed before it held it, or the copy that stands for a Ref
        unfinished = [inner for inner in reversed(paths) if _unfinished(inner)]
        waiting = [inner for inner in section.layers if not _finished(inner)]
        layer = [*unfinished, *waiting, section.layers[-1]][0]
    if isinstance(layer, Ref):
        builder.problem((*builder.layer_paths[layer], "ref"), message.removeprefix("ref: "), hint)
        return
    holders = [outer for outer in paths if layer in {inner for _, inner in outer.walk()}]
    written = [outer for outer in holders if outer in builder.layer_paths]
    origin, notes = _origin(builder, section, written[-1], paths)
    place = builder.layer_paths[written[-1]]
    builder.problem(place, f"layer {paths[layer]} ({type(layer).__name__}): {message}{origin}", hint, notes=notes)


def _origin(
    builder: Builder, section: NetSection, layer: Layer, paths: Mapping[Layer, str]
) -> tuple[str, dict[Path, str]]:
    """What a layer gets, and from where: in words, and as notes at what it comes from."""
    shape = vars(layer).get("in_shape")
    if shape is None:
        return "", {}
    if layer is section.layers[0]:
        return f" (it gets {shape}, net.input)", {("net", "input"): f"net.input is {shape}"}
    holder = builder.layer_paths[layer][:-1]
    siblings = [other for other, path in builder.layer_paths.items() if path[:-1] == holder]
    before = siblings[max(0, siblings.index(layer) - 1)]
    if before is layer or vars(before).get("out_shape") != shape:
        return f" (it gets {shape})", {}
    mark = builder.document.mark(builder.layer_paths[before])
    where = f" in line {mark.line}" if mark and mark.line else ""
    name = type(before).__name__
    notes = {builder.layer_paths[before]: f"layer {paths[before]} ({name}) gives {shape}"}
    return f" (it gets {shape} from layer {paths[before]}, {name}{where})", notes


def _unfinished(layer: Layer) -> bool:
    return "in_shape" in vars(layer) and not _finished(layer)


def _finished(layer: Layer) -> bool:
    return "out_shape" in vars(layer)


def outputs_of(net: Net) -> tuple[dict[str, Shape], bool]:
    """(the net's outputs by name with their shapes, whether those are all that can be)."""
    found, complete = {"output": net.output_shape}, True
    for _, layer in net.root.walk():
        if isinstance(layer, AuxiliaryHead):
            found[str(layer.name)] = layer.head[0].out_shape
        elif "emit" in getattr(type(layer).forward, "__code__", _refused.__code__).co_names:
            complete = False  # a user's layer: what it emits is seen when it runs
    return found, complete


# data against the net


def check_shapes(builder: Builder, section: NetSection, sources: dict[str, Source]) -> bool:
    """Every split must give examples of the shape that the net takes; whether data.train does, as far as is known."""
    train = sources["train"]
    for split, source in sources.items():
        if source.dataset is None:
            continue
        own = source.transforms is not None
        place: Path = ("data", split if own else "train", "transforms")
        try:
            shape = tuple(source.dataset.shape)
            for index, transform in enumerate((source.transforms if own else train.transforms) or []):
                place = (*place[:3], index)
                shape = tuple(transform.out_shape(shape))
        except DataError:  # a user's data set that must look at its files: check_data says what is wrong
            continue
        except (LayernetError, ValueError) as error:
            builder.objection(error, {}, place)
            continue
        except Exception as error:  # a user's data set or transform may raise anything
            if isinstance(error, AttributeError) and error.obj is source.dataset and error.name == "shape":
                name = type(source.dataset).__name__
                builder.problem(
                    ("data", split), f"{name} needs shape, that of one example", "for example shape = (28, 28, 1)"
                )
                continue
            builder.problem(place, f"its shape cannot be told: {explain(error)}")
            continue
        if shape != tuple(section.input):
            name = type(source.dataset).__name__
            after = " after the transforms" if place[-1] != "transforms" else ""
            message = f"the net takes {list(section.input)}, but data.{split} ({name}) gives {list(shape)}{after}"
            at: Path = ("net", "input") if split == "train" else ("data", split)
            builder.problem(at, message, f"set net.input: {list(shape)}" if split == "train" else "")
            if split == "train":
                return False  # the others would say the same
    return True


def check_targets(builder: Builder, net: Net, objectives: Placed, outputs: Mapping[str, Shape], source: Source) -> None:
    """A class without an output cannot be learned, and class labels are no numbers to come near to."""
    train = source.dataset
    if train is None:
        return
    classes, labels = train.classes, _gives_labels(train, source.transforms or [])
    for path, objective in objectives:
        if classes and labels and isinstance(objective.loss, Loss) and objective.loss.targets == "numbers":
            names = type(objective.loss).__name__, type(train).__name__
            message = f"{names[0]} takes numbers as targets, but those of {names[1]} are class labels"
            builder.problem(path, message, "use CrossEntropy")
        width = outputs.get(objective.on, ())[-1:]
        one_a_class = isinstance(objective.loss, Loss) and objective.loss.targets == "classes"
        if not one_a_class or not classes or not width or width[0] >= len(classes):
            continue
        message = (
            f"{objective.on} has {width[0]} values, but data.train ({type(train).__name__}) has {len(classes)} classes"
        )
        if objective.on == "output":
            learning = [layer for layer in net.layers if layer.params() and layer in builder.layer_paths]
            path = builder.layer_paths[learning[-1]] if learning else path
        builder.problem(path, message, "give the last layer one output a class")


def _gives_labels(train: Dataset, transforms: Iterable[Transform]) -> bool:
    """Whether a data set that has classes is known to give an integer label for each example."""
    if not type(train).__module__.startswith("layernet.") or isinstance(train, Npz):  # whose y may be a 1 a label
        return False
    return all(type(transform).with_target is Transform.with_target for transform in transforms)  # mixed: soft labels


# objectives, metrics, optimizer


def check_objectives(
    builder: Builder, net: Net, objectives: Placed, outputs: Mapping[str, Shape], complete: bool
) -> None:
    """Losses look at outputs that exist and have shapes they take; penalties at parameters that exist."""
    for path, objective in objectives:
        if isinstance(objective.loss, Penalty):
            _check_pattern(builder, net, objective.loss.params, (*path, "params"))
        elif objective.on in outputs:
            _check_loss(builder, objective.loss, outputs[objective.on], path)
        elif complete:
            _no_output(builder, objective.on, outputs, path)


def _no_output(builder: Builder, on: str, outputs: Iterable[str], path: Path) -> None:
    builder.problem((*path, "on"), f"the net has no output called {on!r}", did_you_mean(on, outputs))


def _check_loss(builder: Builder, loss: Loss, shape: Shape, path: Path) -> None:
    try:
        loss.check(shape)
    except (LayernetError, ValueError) as error:
        builder.objection(error, loss.arguments, path)
    except Exception as error:
        builder.problem(path, f"check failed: {explain(error)}")


def _check_pattern(builder: Builder, net: Net, pattern: str, path: Path, at_key: bool = False) -> list[Param]:
    paths = net.params()
    return [paths[name] for name in _check_paths(builder, paths, pattern, path, "parameter", at_key)]


def _check_paths(
    builder: Builder, paths: Iterable[str], pattern: str, path: Path, what: str, at_key: bool = False
) -> list[str]:
    found = [name for name in paths if fnmatchcase(name, pattern)]
    if not found:
        near = difflib.get_close_matches(pattern, _patterns(paths), n=1)
        hint = f"did you mean {near[0]!r}?" if near else _some(paths)
        builder.problem(path, f"no {what} matches {pattern!r}", hint, at_key)
    return found


def _patterns(paths: Iterable[str]) -> list[str]:
    """Parameter paths, and the patterns that somebody may have meant."""
    found = []
    for path in paths:
        parts = path.split(".")
        found += [path, f"*.{parts[-1]}", *(".".join(parts[:n]) + ".*" for n in range(1, len(parts)))]
    return list(dict.fromkeys(found))


def _some(paths: Iterable[str]) -> str:
    first = list(paths)
    if not first:
        return "the net has no parameters"
    return f"the paths are {', '.join(first[:6])}{', ...' if len(first) > 6 else ''}"


def check_groups(builder: Builder, net: Net, groups: Any) -> None:
    """Every pattern matches, and no parameter is given one setting twice."""
    by: dict[tuple[str, str], str] = {}
    for pattern, settings in (groups or {}).items():
        path: Path = ("optimizer", "groups", pattern)
        clashes: dict[tuple[str, str], str] = {}
        for param in _check_pattern(builder, net, pattern, path, at_key=True):
            for setting in settings:
                if setting in NORMS and len(param.shape) < 2:
                    message = f"{pattern!r} sets {setting} of {param.path}"
                    builder.problem((*path, setting), message, ONE_AXIS, at_key=True)
                    break
                other = by.setdefault((param.path, setting), pattern)
                if other != pattern:
                    clashes.setdefault((setting, other), param.path)
        for (setting, other), param_path in clashes.items():
            message = f"{pattern!r} and {other!r} both set {setting} of {param_path}"
            builder.problem((*path, setting), message, "let each parameter match one of them", at_key=True)


def name_objectives(builder: Builder, objectives: Placed) -> list[Objective]:
    """The objectives with their log names."""
    every = [objective for _, objective in objectives]
    for index, (path, objective) in enumerate(objectives):
        if objective.name == "loss":
            message = "the weighted sum of all objectives is called 'loss'"
            builder.problem((*path, "name"), message, "use another name")
        elif objective.name and objective.name in [other.name for other in every[:index]]:
            builder.problem(
                (*path, "name"), f"another objective is called {objective.name!r}", "give each its own name"
            )
    try:
        return named(every)
    except UsageError:  # noted above
        return every


def check_metrics(builder: Builder, measures: Placed, outputs: Mapping[str, Shape], complete: bool) -> list[str]:
    """What the metrics are called in logs, each once; they look at outputs that exist.

    `complete` says whether `outputs` are all that the net has.
    """
    names: list[str] = []
    for path, measure in measures:
        metric, width = measure.metric, outputs.get(measure.on, ())
        if measure.on not in outputs and complete:
            _no_output(builder, measure.on, outputs, path)
        if isinstance(metric, accuracy) and width and metric.top_k > width[-1]:
            holder = "the net" if measure.on == "output" else measure.on
            builder.problem((*path, "top_k"), f"top_k is {metric.top_k}, but {holder} has {width[-1]} outputs")
        for name in _results(measure):
            if name in names:
                builder.problem(path, f"the metric {name} is given twice", "remove one")
            names.append(name)
    return names


def _results(measure: Measure) -> list[str]:
    try:
        return list(measure.result())
    except Exception:  # a user's metric may need data for a result
        return []


class Validation(NamedTuple):
    """What a run measures on val, by log name without `val.`: whether there is a val, its metrics, its losses."""

    exists: bool
    metrics: list[str]
    losses: list[str]

    @property
    def first(self) -> str:
        """What selection goes by where nothing else is said."""
        return f"val.{[*self.metrics, *self.losses][0]}"

    def mode(self, watch: str) -> str:
        """Losses want to fall, metrics to rise."""
        return "min" if watch.partition(".")[2] in self.losses else "max"


def validation(has_val: bool, metrics: list[str], objectives: list[Objective]) -> Validation:
    """From the log names of the metrics, and the objectives with theirs."""
    return Validation(
        has_val, metrics, ["loss", *([o.name for o in objectives if o.name] if len(objectives) > 1 else [])]
    )


def best_of(builder: Builder, best: str | None, val: Validation) -> str | None:
    """What `best` is chosen by: as given where it can be, the first metric for `auto`."""
    path: Path = ("train", "checkpoint", "best")
    if best == "auto":
        return val.first if val.exists else None
    if best is not None:
        _check_watch(builder, best, val, path, (f"best cannot be chosen by {best!r}", f"best is chosen by {best}"))
    return best


def watch_of(builder: Builder, follower: Any, path: Path, val: Validation, best: str | None = None) -> dict[str, str]:
    """What stands for each `auto` of a schedule or callback that follows a measured value; nothing for any other.

    `best` is what a `watch` of `auto` becomes; None: the first value on val.
    """
    watch = getattr(follower, "watch", None)
    if not isinstance(watch, str):
        return {}
    name, given = type(follower).__name__, watch != "auto"
    watch = watch if given else best or val.first
    place = (*path, "watch") if given else path
    _check_watch(builder, watch, val, place, (f"{name} cannot follow {watch!r}", f"{name} follows {watch}"))
    found = {"watch": watch, "mode": val.mode(watch)}
    return {key: value for key, value in found.items() if getattr(follower, key, None) == "auto"}


def check_warm_start(builder: Builder, net: Net, config: WarmStartConfig | None) -> None:
    """Its patterns match, and leave something to be taken."""
    if config is None:
        return
    paths = {**net.params(), **net.buffers()}
    for key in ("include", "exclude"):
        for pattern in config.patterns(key):
            _check_paths(builder, paths, pattern, ("warm_start", key), "parameter or statistic")
    if not config.chosen(paths):
        builder.problem(("warm_start",), "exclude leaves nothing of what include matches")


def check_callbacks(builder: Builder, net: Net | None, callbacks: Iterable[Any]) -> None:
    """The parameters that callbacks name exist."""
    for index, callback in enumerate(callbacks):
        if net is not None and isinstance(getattr(callback, "params", None), str):
            _check_pattern(builder, net, callback.params, ("callbacks", index, "params"))


def _check_watch(builder: Builder, watch: str, val: Validation, path: Path, wording: tuple[str, str]) -> None:
    """A value to select by is measured, and on val."""
    broken = {problem.path.split(".")[0] for problem in builder.problems}
    if not broken <= {"average", "callbacks", "data", "net", "optimizer", "schedule", "train"}:
        return  # what can be measured is not known, since metrics or losses are missing
    split, _, name = watch.partition(".")
    if split != "val" or name not in (*val.metrics, *val.losses):
        known = [f"val.{each}" for each in (*val.metrics, *val.losses)]
        builder.problem(path, wording[0], did_you_mean(watch, known))
    elif not val.exists:
        builder.problem(path, f"{wording[1]}, but there is no data.val", "add val: {fraction: 0.1} to data")
