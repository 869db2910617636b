"""A resolved config for people: a value a line, each with where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from layernet.config.experiment import ExperimentConfig
from layernet.config.marks import Path, inline
from layernet.config.variables import escaped
from layernet.errors import Mark

_USER_FILE = re.compile(r"\./(.+\.py)(:\w+)")
_WIDEST = 72  # columns to the left of comments; a longer line has its own further right


def show(config: ExperimentConfig, sources: bool = True) -> str:
    """The config with every default, as YAML that loads to the same experiment from where the config's file is.

    With `sources`, comments name the file and line of each value, the `--set`, or `default`.
    """
    lines = list(_lines(escaped(_beside(config)), (), 0))
    if not sources:
        return "\n".join(text for text, _ in lines)
    width = max(len(text) for text, _ in lines if len(text) <= _WIDEST)
    told = [(text, None if path is None else _source(config, path)) for text, path in lines]
    return "\n".join(text if source is None else f"{text:<{width}}  # {source}" for text, source in told)


def _lines(value: Any, path: Path, depth: int) -> Iterator[tuple[str, Path | None]]:
    """(text, the path of the value that stands on it; None for a line that only leads on)."""
    indent = "  " * depth
    if isinstance(value, dict):
        for key, item in value.items():
            head, inner = f"{indent}{inline(key)}:", (*path, key)
            if _is_leaf(item):
                yield f"{head} {inline(item)}", inner
            else:
                yield head, None
                yield from _lines(item, inner, depth + 1)
    else:
        for index, item in enumerate(value):
            inner = (*path, index)
            if _is_leaf(item):
                yield f"{indent}- {inline(item)}", inner
            else:
                (first, place), *rest = _lines(item, inner, depth + 1)
                yield f"{indent}- {first.lstrip()}", place
                yield from rest


def _is_leaf(value: Any) -> bool:
    """Whether a value stands on one line: all but what holds mappings, and mappings themselves."""
    if isinstance(value, list):
        return all(_is_leaf(item) and not (isinstance(item, dict) and item) for item in value) and not any(
            isinstance(item, str) for item in value
        )
    return not (isinstance(value, dict) and value)


def _source(config: ExperimentConfig, path: Path) -> str:
    """Where the value at a path of the resolved config is written."""
    document = config.document
    ways = [path]
    if path[0] in ("loss", "metrics") and (path[0], 0) not in document.values:
        ways = [(path[0], *path[2:])]  # one entry stands for a list of one
    if path[-1] == "type":
        ways += [way[:-1] for way in ways if (*way[:-1], "type") not in document.values]
    for way in ways:
        origin = document.origins.get(way)
        if origin is not None:
            behind = f" of {_line(origin.mark)}" if origin.mark else ""
            return f"{_line(document.mark(way))}, {origin.written}{behind}"
        if way in document.values:
            return _line(document.values[way])
    return "default"


def _line(mark: Mark | None) -> str:
    return "" if mark is None else f"{mark.file}:{mark.line}" if mark.line else mark.file


def _beside(config: ExperimentConfig) -> dict[str, Any]:
    """The resolved config, with the user's files named by their paths from the config's folder.

    In a run directory, for which it is resolved, copies of them stand side by side.
    """
    places = config.lookup.places
    folder = config.lookup.folder.resolve()

    def spelled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spelled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [spelled(item) for item in value]
        found = _USER_FILE.fullmatch(value) if isinstance(value, str) else None
        if found is None or found[1] not in places:
            return value
        place = FilePath(os.path.relpath(places[found[1]], folder)).as_posix()
        return f"{place if place.startswith('../') else f'./{place}'}{found[2]}"

    made: dict[str, Any] = spelled(config.resolved)
    return made
