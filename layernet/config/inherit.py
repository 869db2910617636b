"""`extends: other.yaml`: a config that says only what differs from others.

Mappings merge key by key; lists, scalars and entries of another `type` replace what they stand over. Every value keeps
the place in the file where it is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, NoReturn

from layernet.config.marks import MAX_NODES, Document, Path, describe, parse
from layernet.config.reading import near, read
from layernet.errors import ConfigError, Mark, Problem, did_you_mean

MAX_DEEP = 10
"""How long a chain of files may be."""
MAX_FILES = 50

_WHAT = ("type", "fraction", "ref")  # the keys that say what an entry is


def compose(text: str, name: str, folder: FilePath, file: FilePath | None = None) -> Document:
    """A config's text, laid over what it extends. `name` stands for it in messages, its paths start at `folder`.

    Raises ConfigError with the problems of all files that were read; each names its own.
    """
    return _Composer().document(text, name, folder, [(name, _identity(file or folder / name))])


class _Composer:
    """Reads a config and all that it extends, within bounds."""

    def __init__(self) -> None:
        self.files = 0
        self.nodes = 0

    def document(self, text: str, name: str, folder: FilePath, chain: list[tuple[str, str]]) -> Document:
        """The merged document. `chain` has (name, identity) of the files that led here, this one last."""
        own = parse(text, name)
        own.folders = {name: folder}
        self.nodes += len(own.values)
        names = self._names(own)
        own.data.pop("extends", None)
        problems = list(own.problems)
        below: Document | None = None
        for path, given in names:
            try:
                base = self._base(own, path, given, folder, chain)
            except ConfigError as error:
                problems += error.problems
                continue
            below = merged(below, base) if below else base
        if len(problems) > len(own.problems):
            raise ConfigError(problems)
        if below is None:
            return own
        result = merged(below, own)
        declared = below.data.get("vars")
        result.inherited = set(declared) if isinstance(declared, dict) else set()
        return result

    def _names(self, own: Document) -> list[tuple[Path, str]]:
        """(where it is written, what) of each file that a document extends."""
        given = own.data.get("extends")
        if given is None:
            return []
        listed = given if isinstance(given, list) else [given]
        places: list[Path] = [("extends", i) if isinstance(given, list) else ("extends",) for i in range(len(listed))]
        for place, each in zip(places, listed, strict=True):
            if not isinstance(each, str) or not each:
                _stop(own, place, f"expected a file, or a list of files, got {describe(each)}")
            if "${" in each:
                _stop(own, place, f"{each!r}: extends is read before variables are known", "write the file's path")
        return list(zip(places, listed, strict=True))

    def _base(self, own: Document, path: Path, given: str, folder: FilePath, chain: list[tuple[str, str]]) -> Document:
        file = folder / given
        name = os.path.normpath(file)
        self.files += 1
        if self.files > MAX_FILES:
            _stop(own, path, f"more than {MAX_FILES} files are extended, repetitions counted")
        if len(chain) > MAX_DEEP:
            _stop(own, path, f"a chain of more than {MAX_DEEP} files, each of which extends the next")
        identity = _identity(file)
        passed = [each for _, each in chain]
        if identity in passed:
            loop = " -> ".join([*(each for each, _ in chain[passed.index(identity) :]), name])
            _stop(own, path, f"a config cannot extend itself: {loop}")
        try:
            text = read(file)
        except (OSError, ValueError) as error:
            where = os.path.dirname(given)
            hint = did_you_mean(given, [os.path.join(where, other) for other in near(file.parent)])
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            _stop(own, path, f"cannot read {name!r}: {reason}", hint if hint.startswith("did you mean") else "")
        base = self.document(text, name, file.parent, [*chain, (name, identity)])
        if self.nodes > 2 * MAX_NODES:
            _stop(own, path, f"together with what is extended, more than {2 * MAX_NODES} values")
        base.extended = {**base.extended, FilePath(name): text.encode()}
        return base


def merged(below: Document, over: Document) -> Document:
    """One document laid over another."""
    result = Document(
        {},
        problems=[*below.problems, *over.problems],
        folders={**below.folders, **over.folders},
        extended={**below.extended, **over.extended},
    )
    result.data = _merge(below, over, (), below.data, over.data, result)
    return result


def _merge(below: Document, over: Document, path: Path, old: Any, new: Any, result: Document) -> Any:
    if isinstance(new, dict) and isinstance(old, str) and _goes_on(new, path):
        old = {"type": old}  # a bare name that is given arguments
        result.values[(*path, "type")] = result.keys[(*path, "type")] = below.values[path]
    if not isinstance(new, dict) or not isinstance(old, dict) or _is_another(old, new, path):
        return _taken(over, path, new, result)
    _place(over, path, result)
    data: dict[str, Any] = {}
    for key in [*old, *(key for key in new if key not in old)]:
        inner = (*path, key)
        if key not in new:
            data[key] = _taken(below, inner, old[key], result)
        elif key not in old:
            data[key] = _taken(over, inner, new[key], result)
        else:
            data[key] = _merge(below, over, inner, old[key], new[key], result)
    return data


def _goes_on(new: Mapping[str, Any], path: Path) -> bool:
    """Whether a mapping has only arguments for what stands below it."""
    return not any(key in new for key in _WHAT) and path[:1] != ("vars",)


def _is_another(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> bool:
    """Whether two entries are of different things, whose arguments have nothing to do with each other."""
    if path[:1] in ((), ("vars",)):
        return False
    was, now = ({key: entry[key] for key in _WHAT if key in entry} for entry in (old, new))
    return bool(was and now) and was.get("type", was.keys()) != now.get("type", now.keys())


def _taken(source: Document, path: Path, value: Any, result: Document) -> Any:
    """A value as it is, with the places of all that is in it."""
    _place(source, path, result)
    if isinstance(value, dict):
        return {key: _taken(source, (*path, key), inner, result) for key, inner in value.items()}
    if isinstance(value, list):
        return [_taken(source, (*path, i), inner, result) for i, inner in enumerate(value)]
    return value


def _place(source: Document, path: Path, result: Document) -> None:
    for marks, places in ((result.values, source.values), (result.keys, source.keys)):
        if path in places:
            marks[path] = places[path]


def _identity(file: FilePath) -> str:
    try:
        return os.path.realpath(file)
    except (OSError, ValueError):
        return str(file)


def _stop(document: Document, path: Path, message: str, hint: str = "") -> NoReturn:
    mark: Mark | None = document.mark(path)
    raise ConfigError([Problem(message, "extends", mark, hint)])
