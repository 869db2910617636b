"""`--set a.b=c`: changes to a config before it is checked, so that they meet the same checks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from layernet.config.marks import Document, Path, describe, dotted, parse_value
from layernet.errors import ConfigError, Mark, Problem, did_you_mean

Overrides: TypeAlias = Mapping[str, object] | Sequence[str]
"""{"train.epochs": 2}, or ["train.epochs=2"] with values as in YAML."""


def apply(document: Document, overrides: Overrides, option: str = "--set", within: str = "") -> None:
    """Change the document, or what stands at the key `within`. A list is entered by index, or by a layer's name in it.

    Messages say that the overrides were given with `option`.

    Raises ConfigError, naming every override that leads nowhere.
    """
    problems: list[Problem] = []
    for key, value in _pairs(overrides, option, problems):
        origin = Mark(f"{option} {key}", 0, 0)
        try:
            _set(document, f"{within}.{key}" if within else key, value, origin)
        except LeadsNowhere as error:
            problems.append(Problem(error.message, "", origin, error.hint))
    if problems:
        raise ConfigError(problems)


class LeadsNowhere(Exception):
    """A path that meets nothing: what is wrong, and the cure."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def _pairs(overrides: Overrides, option: str, problems: list[Problem]) -> list[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        return [(str(key), _copy(value)) for key, value in overrides.items()]
    pairs = []
    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            form = "path=value" if option == "--set" else "name=value"
            example = "train.epochs=2" if option == "--set" else f"{key or 'kernel_size'}=3"
            problems.append(Problem(f"{option} takes {form}, got {item!r}", hint=f"for example {example}"))
            continue
        try:
            pairs.append((key, parse_value(text, f"{option} {key}")))
        except ConfigError as error:
            problems += error.problems
    return pairs


def _copy(value: Any) -> Any:
    """Plain data of its own; tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value


def _set(document: Document, key: str, value: Any, origin: Mark) -> None:
    holder: Any = document.data
    path: Path = ()
    parts = parts_of(key)
    if not parts:
        raise LeadsNowhere("an empty path names nothing", "for example train.epochs")
    if parts[0] == "extends":
        raise LeadsNowhere("extends is read before anything is set", "name another config instead")
    while True:
        step, parts = step_into(holder, path, parts)
        path = (*path, step)
        if isinstance(holder, dict) and step not in holder:
            holder[step] = {}
            document.keys[path] = document.values[path] = origin
        if not parts:
            break
        if isinstance(holder[step], str) and holder[step].startswith("${"):
            raise LeadsNowhere(f"{dotted(path)} is {holder[step]}: what is in it is not known yet", "set the variable")
        if isinstance(holder[step], str):  # the bare name of a type, about to get arguments
            holder[step] = {"type": holder[step]}
        elif holder[step] is None:
            holder[step] = {}
        holder = holder[step]
    holder[step] = value
    _mark_all(document, path, value, origin)


def parts_of(key: str) -> list[str]:
    """The parts of a dotted path; one in double quotes may hold dots itself."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"\.?|([^.]+)\.?|\.', key)]


def step_into(holder: Any, path: Path, parts: list[str]) -> tuple[str | int, list[str]]:
    """(the key or index that the next parts mean, the parts after it)."""
    where = dotted(path)
    if isinstance(holder, dict):
        for count in range(len(parts), 0, -1):  # a key may hold dots: optimizer.groups.head.*.lr_mult
            if ".".join(parts[:count]) in holder:
                return ".".join(parts[:count]), parts[count:]
        return parts[0], parts[1:]
    if isinstance(holder, list):
        if parts[0].isdecimal() and int(parts[0]) < len(holder):
            return int(parts[0]), parts[1:]
        names = {
            item["name"]: i
            for i, item in enumerate(holder)
            if isinstance(item, dict) and isinstance(item.get("name"), str)
        }
        if parts[0] in names:
            return names[parts[0]], parts[1:]
        size = f"it has {len(holder)} entries, 0 to {len(holder) - 1}" if holder else "it is empty"
        hint = did_you_mean(parts[0], names) if names and not parts[0].isdecimal() else size
        raise LeadsNowhere(f"{where} has no entry {parts[0]!r}", hint)
    raise LeadsNowhere(f"{where} is {describe(holder)}: there is nothing in it to set")


def _mark_all(document: Document, path: Path, value: Any, origin: Mark) -> None:
    """Everything at and under `path` now comes from the override."""
    for marks in (document.values, document.keys):
        for old in [place for place in marks if place[: len(path)] == path and place != path]:
            del marks[old]
    document.values[path] = document.keys[path] = origin
