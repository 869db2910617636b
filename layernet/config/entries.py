"""What an entry of a config is besides its class's arguments: the keys of our own, and how it is written down again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field

from layernet.config.schema import AsPart, expected, spelled
from layernet.data.dataset import Dataset
from layernet.data.transforms import Transform


def _layer_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w-]*", name):
        raise expected("a name of letters, digits, _ and -")
    return name


LayerName = Annotated[str, AfterValidator(_layer_name), spelled(r"^\w[\w-]*$", "a name of letters, digits, _ and -")]
Repeat = Annotated[int, Field(ge=1, le=1000)]

ObjectivePart = Annotated[Any, AsPart("objective")]
MeasurePart = Annotated[Any, AsPart("measure")]
SourcePart = Annotated[Any, AsPart("source")]


class Source(NamedTuple):
    """Where a split's examples come from: a data set, or a fraction of the training set; and transforms of its own."""

    dataset: Dataset | None
    fraction: float | None
    transforms: list[Transform] | None


class Built(NamedTuple):
    """An object, and the plain data that makes it."""

    value: Any
    plain: Any


class Several(list[Built]):
    """The copies that a `repeat` asks for."""


class Extras:
    """The keys that an entry may have beside its class's own arguments: signatures, read like constructors.

    Their docstrings, `key: meaning` a line, are what the page on configs says of them.
    """

    @staticmethod
    def layer(name: LayerName | None = None, repeat: Repeat = 1) -> None:
        """
        name: What parameter paths, messages and `--set` call it; null: its type and a number.
        repeat: So many in a row, called `name.0`, `name.1`, ...; each with parameters of its own, but for `ref`.
        """

    @staticmethod
    def tied(ref: str, name: LayerName | None = None, repeat: Repeat = 1) -> None:
        """
        ref: The path of a layer, written in this config, whose arguments and parameters this one has.
        name: What parameter paths, messages and `--set` call it; null: its type and a number.
        repeat: So many in a row, called `name.0`, `name.1`, ...; each with parameters of its own, but for `ref`.
        """

    @staticmethod
    def objective(on: str = "output", weight: float = 1.0, name: str | None = None) -> None:
        """
        on: The output that it looks at: the net's own, or that of an AuxiliaryHead by its name.
        weight: How much it counts in the sum.
        name: What logs call it; null: its class in snake_case.
        """

    @staticmethod
    def penalty(weight: float = 1.0, name: str | None = None) -> None:
        """
        weight: How much it counts in the sum.
        name: What logs call it; null: its class in snake_case.
        """

    @staticmethod
    def measure(on: str = "output") -> None:
        """
        on: The output that it looks at, as of a loss. Logs put its name in front: `aux_accuracy`.
        """

    @staticmethod
    def source(transforms: list[Transform] | None = None) -> None:
        """
        transforms: Preprocessing in order; null: none for train, those of train for val and test.
        """

    @staticmethod
    def fraction(fraction: Annotated[float, Field(gt=0, lt=1)], transforms: list[Transform] | None = None) -> None:
        """
        fraction: The share of train, between 0 and 1, that is set apart; the same share of every class.
        transforms: Preprocessing in order; null: none for train, those of train for val and test.
        """


def names_of(extras: Mapping[str, Built]) -> list[str | None]:
    """The name of each copy: stage1.0, stage1.1 where `stage1` repeats."""
    name = extras["name"].value if "name" in extras else None
    if "repeat" not in extras:
        return [name]
    return [None if name is None else f"{name}.{i}" for i in range(extras["repeat"].value)]


def given_extras(extras: Mapping[str, Built]) -> dict[str, Any]:
    return {name: built.plain for name, built in extras.items() if built.plain is not None}


def entry(name: str | None, arguments: Mapping[str, Any], extras: Mapping[str, Built] | None = None) -> Any:
    """A thing with a type as plain data: the bare name where there is nothing else to say."""
    extra = given_extras(extras or {})
    first = {key: extra.pop(key) for key in ("name",) if key in extra}
    rest = {**first, **arguments, **extra}
    return {"type": name, **rest} if rest else name
