"""What a config's `type:` names: a built-in class, or a class or function of the user's."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Container, Iterable
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any

from layernet.config.elsewhere import suggest
from layernet.config.names import BASES, BUILT_IN, Kind
from layernet.config.userfiles import UserFolder
from layernet.core.blame import is_theirs, place
from layernet.core.duties import faults
from layernet.errors import did_you_mean

_MORE = " more"  # how a hint ends that leaves some out
_ALL = "`layernet layers` lists all"


class LookupFailure(Exception):
    """A name that stands for nothing usable: what is wrong, and the cure."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Lookup:
    """Finds what names stand for. `folder` is where `./file.py` starts."""

    def __init__(self, folder: FilePath) -> None:
        self.folder = folder
        self._folders: dict[FilePath, UserFolder] = {}
        self._files: dict[Any, FilePath] = {}

    @property
    def files(self) -> dict[str, bytes]:
        """The user's files imported so far, those that other files import too: place beside a config, and content.

        The bytes are those that were imported. Raises LookupFailure where two files have one place.
        """
        contents = {file: data for folder in self._folders.values() for file, data in folder.contents.items()}
        return {name: contents[file] for name, file in self.places.items()}

    @property
    def places(self) -> dict[str, FilePath]:
        """Those files by their places beside a config. Raises LookupFailure where two have one."""
        found: dict[str, FilePath] = {}
        for folder in self._folders.values():
            for file in folder.contents:
                name = file.relative_to(folder.folder).as_posix()
                if found.setdefault(name, file) != file:
                    hint = "rename one: a run keeps them side by side"
                    raise LookupFailure(f"{file} and {found[name]} have one name", hint)
        return found

    def find(self, kind: Kind, name: str, folder: FilePath | None = None) -> Any:
        """The class (for `init`, also a function) that a config calls `name`. Raises LookupFailure.

        `folder` is where `./file.py` starts of a name that another file than the config itself holds.
        """
        place, colon, attribute = name.rpartition(":")
        if not colon:
            return self._built_in(kind, name, folder)
        if not place or not attribute.isidentifier():
            raise LookupFailure(f"{name!r} names nothing", "write package.module:Class or ./file.py:Class")
        module, file = self._load(place, folder)
        found = getattr(module, attribute, None)
        if found is None:
            raise LookupFailure(f"{place} has no {attribute!r}", did_you_mean(attribute, _candidates(kind, module)))
        if not _fits(kind, found):
            raise LookupFailure(f"{name} is {_what(found)}, expected {_expected(kind)}")
        if inspect.isclass(found) and (wrong := faults(found)):
            raise LookupFailure("; ".join(wrong))
        if file:
            self._files[found] = file
        return found

    def kind(self, name: str) -> Kind:
        """The kind of what is called `name`; for what is of none, `layer`. Raises LookupFailure."""
        place, colon, attribute = name.rpartition(":")
        if not colon:
            self._refuse_file(name)
            found_in = (kind for kind, table in BUILT_IN.items() if name in table)
            kind = next(found_in, None)
            if kind is None:
                known = [known for table in BUILT_IN.values() for known in table]
                raise LookupFailure(f"nothing built in is called {name!r}", _suggest(name, known))
            return kind
        found = getattr(self._load(place)[0], attribute, None) if place else None
        if inspect.isfunction(found):
            return "init"
        return (kind_of(found) if inspect.isclass(found) else None) or "layer"

    def spell(self, kind: Kind, target: Any) -> str | None:
        """The name by which a resolved config calls a class or a function; None where it has none.

        Files are called by their last name, since a run directory keeps copies of them beside its config.
        """
        if _place(target) in BUILT_IN[kind].values():
            return next(name for name, place in BUILT_IN[kind].items() if place == _place(target))
        if target in self._files:
            return f"./{self._files[target].name}:{target.__name__}"
        if target.__module__.startswith("_layernet_user_"):  # met on the way: the default of an argument
            files = (folder.file_of(target.__module__) for folder in self._folders.values())
            return next((f"./{file.name}:{target.__qualname__}" for file in files if file), None)
        return _place(target) if target.__qualname__.isidentifier() else None

    def _refuse_file(self, name: str, kind: Kind | None = None, folder: FilePath | None = None) -> None:
        """Ask which class in a file is meant: those of the kind, or where there are none all that a config can name."""
        if not name.endswith(".py"):
            return
        module = self._load(name, folder)[0]
        own = {
            each: kind_of(value)
            for each, value in vars(module).items()
            if inspect.isclass(value) and value.__module__ == module.__name__ and kind_of(value)
        }
        own = {each: found for each, found in own.items() if found == kind} or own
        hint = f"write {' or '.join(f'{name}:{each}' for each in own)}" if own else f"write {name}:Class"
        raise LookupFailure(f"{name!r} is a file, and which class in it is meant is not said", hint)

    def _load(self, place: str, folder: FilePath | None = None) -> tuple[ModuleType, FilePath | None]:
        file = ((folder or self.folder) / place).resolve() if place.endswith(".py") else None
        return (self._file(place, file), file) if file else (_module(place), None)

    def _built_in(self, kind: Kind, name: str, folder: FilePath | None = None) -> Any:
        table = BUILT_IN[kind]
        if name in table:
            return load(table[name])
        self._refuse_file(name, kind, folder)
        for other, names in BUILT_IN.items():
            if other != kind and name in names:
                hint = did_you_mean(name, table)
                hint = _ALL if hint.endswith(_MORE) else hint
                raise LookupFailure(f"{name} is {article(other)}, expected {article(kind)}", hint)
        raise LookupFailure(f"there is no {_noun(kind)} called {name!r}", _suggest(name, table))

    def _file(self, place: str, file: FilePath) -> ModuleType:
        if file.parent not in self._folders:
            self._folders[file.parent] = UserFolder(file.parent)
        folder = self._folders[file.parent]
        try:
            folder.read(file)
        except OSError as error:
            near = [f"./{other.name}" for other in file.parent.glob("*.py")]
            hint = did_you_mean(f"./{file.name}", near) if near else "the path starts at the config's folder"
            raise LookupFailure(f"cannot read {place}: {error.strerror}", hint) from None
        try:
            module = folder.load(file)
        except (Exception, SystemExit) as error:
            reason = explain(error, {str(known) for known in folder.contents}).replace(f"{folder.package}.", "")
            raise LookupFailure(f"importing {place} failed: {reason}") from error
        _ = self.files  # that each has a place of its own
        return module


def load(place: str) -> Any:
    """What stands at `module`, `module:attribute` or `module:attribute.attribute`."""
    module, _, attributes = place.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split(".") if attributes else []:
        found = getattr(found, attribute)
    return found


def kind_of(cls: type) -> Kind | None:
    """The kind whose base a class subclasses or is. Imports nothing: the base is in the class's own ancestry."""
    ancestry = {_place(ancestor) for ancestor in cls.__mro__}
    return next((kind for kind, places in BASES.items() if ancestry.intersection(places)), None)


def _place(target: Any) -> str:
    return f"{target.__module__}:{target.__qualname__}"


def article(kind: str) -> str:
    """`a layer`, `an optimizer`."""
    word = _noun(kind)
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _noun(kind: str) -> str:
    return {"init": "initialiser", "dataset": "data set"}.get(kind, kind)


def _suggest(name: str, table: Iterable[str]) -> str:
    hint = suggest(name, table)
    if hint.endswith(_MORE):
        hint = f"{hint}: {_ALL}"
    own = "one of your own is package.module:Class or ./file.py:Class"
    return hint if hint.startswith("did you mean") else f"{hint}; {own}" if table else own


def explain(error: BaseException, files: Container[str] | None = None) -> str:
    """An exception in one line, with the last line of one of `files` (default: of the user's) that it passed."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({place(error.filename, error.lineno)})"
    frames = list(traceback.walk_tb(error.__traceback__))
    theirs = {frame.f_code.co_filename for frame, _ in frames if is_theirs(frame)}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in (files if files is not None else theirs):
            return f"{text} ({place(frame.filename, frame.lineno)})"
    return text


def _module(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:  # as with `python -m`; last, so that it hides nothing
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            hint = f"looked in {here} and the installed packages; a file beside the config is ./file.py:Class"
            raise LookupFailure(f"there is no module {error.name!r}", hint) from None
        raise LookupFailure(f"importing {name} failed: {explain(error)}") from error
    except (Exception, SystemExit) as error:
        found = importlib.util.find_spec(name) if "." not in name else None
        raise LookupFailure(
            f"importing {name} failed: {explain(error, {found.origin} if found and found.origin else None)}"
        ) from error


def _fits(kind: Kind, found: Any) -> bool:
    if inspect.isclass(found):
        return kind_of(found) == kind and _place(found) not in BASES[kind]
    return kind == "init" and inspect.isfunction(found)


def _candidates(kind: Kind, module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if not name.startswith("_") and _fits(kind, value)]


def _what(found: Any) -> str:
    if inspect.isclass(found):
        names = [next(c.__name__ for c in base.__mro__ if c.__name__[0] != "_") for base in found.__bases__]
        return f"a class that subclasses {', '.join(names)}"
    return "a function" if callable(found) else f"of type {type(found).__name__}"


def _expected(kind: Kind) -> str:
    names = " or ".join(place.partition(":")[2] for place in BASES[kind])
    return f"a subclass of {names}" + (", or a function f(shape, rng, ...)" if kind == "init" else "")
