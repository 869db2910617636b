"""The catalogue: everything a config can name, described by its signature, its docstring and its test case.

Nothing is written here twice: the command line prints entries, and pages can be made of them.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from layernet.backend import Shape
from layernet.config.lookup import Lookup, article, kind_of
from layernet.config.names import BUILT_IN, Kind
from layernet.config.schema import ENTRY_OF, AsPart, Section, schema_of
from layernet.core.configurable import Configurable
from layernet.core.duration import Duration, Interval
from layernet.core.init import InitFunction
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.losses import Penalty
from layernet.testing.cases import LAYERS, LOSSES

_FAMILIES = {"sequential": "composite"}  # modules of core/ that belong to a family of layers/
_CITATION = re.compile(r"\s*\(((?:[A-Z][^()]*(?:19|20)\d\d[^()]*|arXiv:[^()]*))\)")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_SOURCE = re.compile(r"^Source: (.*?)\.?$(?!\n\w)", re.S | re.M)

_ARGUMENTS: dict[str, dict[str, Any] | None] = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "Step": {"every": "30 epochs"},
    "MultiStep": {"at": ["30 epochs", "60 epochs"]},
    "Exponential": {"gamma": 0.95},
    "Cosine": {"warmup": "1 epochs"},
    "CosineRestarts": {"period": "10 epochs"},
    "Inv": {"gamma": 1e-4, "power": 0.75},
    "SigmoidDecay": {"gamma": 0.01, "at": "30 epochs"},
    "Decay": {"form": "exp", "by": 10.0},
    "Plateau": {"factor": 0.5, "patience": 3},
    "SWA": {"start": "75 epochs"},
    "EarlyStopping": {"patience": 5},
    "Freeze": {"params": "*.weight", "until": "3 epochs"},
    "FakeData": {"shape": [8, 8, 1]},
    "Arrays": None,
    "Npz": {"path": "flowers.npz"},
    "ImageFolder": {"root": "flowers/train", "size": 64},
    "Csv": {"path": "flowers.csv", "label": "kind", "classes": ["iris", "rose"]},
    "RandomCrop": {"size": 8, "padding": 1},
    "CenterCrop": {"size": 8},
    "Pad": {"padding": 1},
    "Cutout": {"size": 2},
    "MixUp": {"num_classes": 10, "alpha": 0.2},
    "CutMix": {"num_classes": 10, "p": 0.5},
    "RandomResizedCrop": {"size": 8},
    "ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "constant": {"value": 0.1},
}
"""Arguments for the examples of what has no test case and needs some; None for what a config cannot make."""

_OF_COLOURS = {"ColorJitter", "ColorNoise"}
"""Transforms that are shown on photographs."""


@dataclass(frozen=True)
class Argument:
    """One constructor argument. `default` is written as in a config; None for one that must be given."""

    name: str
    type: str
    default: str | None


@dataclass(frozen=True)
class Entry:
    """What is known of a class (or an initialiser function) without making one."""

    name: str
    kind: Kind
    family: str
    formula: str
    """The docstring's first line, without its citation."""
    text: str
    """The rest of the docstring: shapes, arguments, errors."""
    arguments: list[Argument]
    papers: list[str]
    place: str
    """module:Class."""


@dataclass(frozen=True)
class Tensors:
    """A layer built for one input shape: its output, its parameters and buffers by path, its cost."""

    in_shape: Shape
    out_shape: Shape
    params: dict[str, Shape]
    buffers: dict[str, Shape]
    flops: int | None


def built_in() -> Iterator[Entry]:
    """Everything built in, kind by kind, in the order of the table of names."""
    lookup = Lookup(Path())
    for table in BUILT_IN.values():
        for name in table:
            yield describe(name, lookup)


def describe(name: str, lookup: Lookup) -> Entry:
    """The entry of a built-in name, `module:Class` or `file.py:Class`. Raises LookupFailure, SchemaError."""
    kind = lookup.kind(name)
    target = lookup.find(kind, name)
    doc = inspect.cleandoc(target.__doc__ or "")  # its own: what a base says is not about it
    first, _, rest = doc.partition("\n\n")
    cited = (match[1] for pattern in (_CITATION, _SOURCE) for match in pattern.finditer(doc))
    return Entry(
        name=name,
        kind=kind,
        family=_family(kind, target.__module__),
        formula=_CITATION.sub("", " ".join(first.split())).removesuffix("."),
        text=_SOURCE.sub("", rest).strip(),
        arguments=arguments_of(target, lookup, 0 if inspect.isclass(target) else 2),  # an init's shape and rng
        papers=list(dict.fromkeys(" ".join(paper.split()) for paper in cited)),
        place=f"{target.__module__}:{target.__qualname__}",
    )


def link(paper: str) -> str | None:
    """Where a paper can be read, where its citation tells."""
    found = _ARXIV.search(paper)
    return f"https://arxiv.org/abs/{found[1]}" if found else None


def example_layer(name: str) -> tuple[Layer, Shape] | None:
    """A layer of a built-in name and a shape to build it for: its first test case."""
    case = next((case for case in LAYERS if case.name == name), None)
    if case is None:
        return None
    made = case.make()
    assert isinstance(made, Layer)
    return made, case.shape


def tensors_of(layer: Layer, shape: Shape) -> Tensors:
    """What the layer declares for this input. Builds it; raises ShapeError where it cannot be."""
    net = Net([layer.named("it")], shape)
    own = {
        kind: {path.removeprefix("it."): tensor.shape for path, tensor in getattr(net, kind)().items()}
        for kind in ("params", "buffers")
    }
    return Tensors(net.input_shape, net.output_shape, own["params"], own["buffers"], layer.flops(net.input_shape))


def example(entry: Entry, lookup: Lookup, layer: Layer | None = None, shape: Shape | None = None) -> str | None:
    """A part of a config that uses the entry, as YAML; None where a config cannot make one, or values are wanted.

    A user's layer is shown as it is given, with its input shape.
    """
    own = _own_entry(entry, lookup, layer)
    if own is None:
        return None
    if entry.kind == "layer" and layer is None and (found := example_layer(entry.name)):
        shape = found[1]
    data = _placed(entry, own, shape)
    nested = any(isinstance(value, list | dict) for value in data.values())
    text: str = yaml.safe_dump(data, sort_keys=False, width=100, default_flow_style=None if nested else False)
    return text.rstrip()


def spell(value: Any, lookup: Lookup) -> Any:
    """A constructor argument as a config has it: plain data, without what is left at its default."""
    if isinstance(value, Configurable):
        kind = kind_of(type(value))
        return _entry(kind and lookup.spell(kind, type(value)), value.arguments, lookup)
    if isinstance(value, functools.partial):
        return _entry(lookup.spell("init", value.func), value.keywords, lookup)
    if isinstance(value, Duration):
        return str(value)
    if isinstance(value, Section):
        return {}
    if isinstance(value, list | tuple):
        return [spell(item, lookup) for item in value]
    if isinstance(value, dict):
        return {key: spell(item, lookup) for key, item in value.items()}
    return value


def spell_type(annotation: Any) -> str:
    """An annotation as an author of configs reads it: `int | [int, int]`, `[layer, ...]`, `duration`."""
    if annotation == InitFunction:
        return "initialiser"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and isinstance(annotation.__metadata__[0], AsPart):
        part = annotation.__metadata__[0].kind
        return _noun(ENTRY_OF.get(part, part))
    if origin is Annotated:
        return spell_type(arguments[0])
    if origin is Literal:
        return " | ".join(_flow(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(spell_type(argument) for argument in arguments))
    if origin in (list, tuple):
        items = [spell_type(argument) for argument in arguments if argument is not Ellipsis]
        return f"[{', '.join(items)}{', ...' if origin is list or Ellipsis in arguments else ''}]"
    if origin is not None and issubclass(origin, Mapping):
        return "{" + ": ".join(spell_type(argument) for argument in arguments) + ", ...}"
    if annotation is Any or not inspect.isclass(annotation):
        return "any"
    kind = kind_of(annotation)
    if kind is not None:
        return _noun(kind)
    names: dict[type, str] = {Duration: "duration", Interval: "duration", types.NoneType: "null", str: "text"}
    return "mapping" if issubclass(annotation, Section) else names.get(annotation, annotation.__name__)


def _family(kind: Kind, module: str) -> str:
    """What it is listed under: a layer's module, for all others their kind."""
    if kind != "layer":
        return _noun(kind) if module.partition(".")[0] == "layernet" else f"your own {_noun(kind)}"
    package, _, last = module.rpartition(".")
    return _FAMILIES.get(last, last) if package in ("layernet.core", "layernet.layers") else "your own"


def arguments_of(target: Any, lookup: Lookup, skip: int = 0) -> list[Argument]:
    """The arguments of a class, or of a function without its first `skip`. Raises SchemaError."""
    schema = schema_of(target, skip)
    return [
        Argument(
            name,
            spell_type(schema.annotations.get(name, Any)),
            _flow(spell(schema.defaults[name], lookup)) if name in schema.defaults else None,
        )
        for name in schema.names
    ]


def _own_entry(entry: Entry, lookup: Lookup, layer: Layer | None) -> Any:
    """What stands for the entry in a config: a bare name, or a mapping with its type."""
    if _is_penalty(entry):
        return {"type": lookup.spell("loss", lookup.find("loss", entry.name)), "weight": 0.0001}
    case = next((case for case in (*LAYERS, *LOSSES) if case.name == entry.name), None)
    if layer is not None or case is not None:
        return spell(layer if layer is not None else case and case.make(), lookup)
    given = _ARGUMENTS.get(entry.name, {})
    needed = {argument.name for argument in entry.arguments if argument.default is None}
    if given is None or not needed <= given.keys():
        return None
    name = lookup.spell(entry.kind, lookup.find(entry.kind, entry.name))
    return _entry(name, given, lookup)


def _placed(entry: Entry, own: Any, shape: Shape | None) -> dict[str, Any]:
    """Where in a config it stands."""
    if entry.kind == "layer":
        return {"net": {**({"input": list(shape)} if shape else {}), "layers": [own]}}
    if entry.kind == "init":
        return {"net": {"layers": [{"type": "Linear", "out_features": 10, "weight_init": own}]}}
    if entry.kind == "transform":
        data = "CIFAR10" if entry.name in _OF_COLOURS else "Digits"
        return {"data": {"train": {"type": data, "transforms": [own]}}}
    places: dict[str, dict[str, Any]] = {
        "loss": {"loss": ["CrossEntropy", own] if _is_penalty(entry) else own},
        "metric": {"metrics": [own]},
        "optimizer": {"optimizer": own},
        "schedule": {"schedule": own},
        "average": {"average": own},
        "dataset": {"data": {"train": own}},
        "callback": {"callbacks": [own]},
    }
    return places[entry.kind]


def _is_penalty(entry: Entry) -> bool:
    module, _, name = entry.place.partition(":")
    return entry.kind == "loss" and issubclass(getattr(sys.modules[module], name), Penalty)


def _entry(name: str | None, arguments: Mapping[str, Any], lookup: Lookup) -> Any:
    spelled = {key: spell(value, lookup) for key, value in arguments.items()}
    return {"type": name, **spelled} if spelled else name


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text: str = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=10_000)
    return text.strip()[1:-1]


def _noun(kind: str) -> str:
    return article(kind).partition(" ")[2]
