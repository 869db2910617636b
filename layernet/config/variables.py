"""`${width}`, `${train.epochs}`, `${env:HOME}`: values that are written once and stand in many places.

A text that is one reference becomes the value with its type; inside other text its words are put in. `$${` stands for
`${` itself. There is no arithmetic.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from layernet.config.marks import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, Document, Origin, Path, describe, dotted, scalar
from layernet.config.overrides import LeadsNowhere, parts_of, step_into
from layernet.errors import ConfigError, Mark, Problem, did_you_mean

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
_NAME = re.compile(r"\w[\w-]*")
_ENVIRONMENT = re.compile(r"env:([^:]*)(?::(.*))?", re.S)
_AT_ONCE = 100  # values that may wait for each other, a mapping around another counted too
_SUGGESTED = 1000


def expand(document: Document) -> None:
    """Put what they stand for in the place of all references. What is not known is noted in the document's problems.

    Raises ConfigError where the result would be too large.
    """
    variables = document.data.get("vars")
    expander = _Expander(document)
    data = expander.at((), document.data)
    document.data = data
    if isinstance(variables, dict):
        _check_names(document, variables, expander.used)


def escaped(value: Any) -> Any:
    """Plain data whose texts mean themselves when they are read as a config."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def is_reference(text: str) -> bool:
    """Whether a text is one reference and nothing else."""
    found = _REFERENCE.fullmatch(text)
    return found is not None and found[1] is not None and bool(found[2])


class _Unknown(Exception):
    """A reference that cannot be followed: why, and the cure; no words where that has been told elsewhere."""

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class _Expander:
    """Follows the references of a document, each when it is needed, and remembers what came of it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.raw = document.data
        self.used: set[str] = set()
        self._known: dict[Path, Any] = {}
        self._waiting: list[Path] = []
        self._nodes = 0
        self._characters = 0

    def at(self, path: Path, raw: Any) -> Any:
        """What becomes of the value at a path of the document."""
        if not isinstance(raw, dict | list) and not (isinstance(raw, str) and "${" in raw):
            return raw
        if path in self._known:
            return self._known[path]
        self._waiting.append(path)
        if len(self._waiting) > _AT_ONCE:
            self._too_much(path, f"more than {_AT_ONCE} values wait for each other")
        if isinstance(raw, dict):
            value: Any = {key: self.at((*path, key), item) for key, item in raw.items()}
        elif isinstance(raw, list):
            value = [self.at((*path, i), item) for i, item in enumerate(raw)]
        else:
            value = self._followed(path, raw)
        self._waiting.pop()
        self._known[path] = value
        return value

    def _followed(self, path: Path, text: str) -> Any:
        waiting = len(self._waiting)
        try:
            if is_reference(text):
                value, source = self._value(text[2:-1].strip())
                mark = self._origin(source)
                return self._copy(value, path, source, Origin(text, mark))
            words = _REFERENCE.sub(lambda found: self._words(found), text)
            self._characters += len(words)
            if self._characters > MAX_CHARACTERS:
                self._too_much(path, f"more than {MAX_CHARACTERS} characters, with all variables written out")
            return words
        except _Unknown as unknown:
            del self._waiting[waiting:]
            self.document.broken.add(path)
            if unknown.message:
                mark = self.document.mark(path)
                self.document.problems.append(Problem(unknown.message, dotted(path), mark, unknown.hint))
            return text

    def _words(self, found: re.Match[str]) -> str:
        """What stands inside text for a reference."""
        if found[1] is None:
            return "${"
        if not found[2]:
            raise _Unknown(f"{found[0][:20]!r} is not closed", "write ${name}, without braces in it; ${ itself is $${")
        value, _ = self._value(found[1].strip(), inside=True)
        if isinstance(value, dict | list):
            raise _Unknown(f"{found[0]} is {describe(value)}, which cannot stand inside text")
        return value if isinstance(value, str) else _spelled(value)

    def _value(self, name: str, inside: bool = False) -> tuple[Any, Path]:
        """(what a name stands for, where that is written: `()` for what no config holds)."""
        if environment := _ENVIRONMENT.fullmatch(name):
            text = _variable_of_the_environment(environment[1], environment[2])
            return text if inside else scalar(text), ()
        written = f"${{{name}}}"
        parts = parts_of(name)
        if "" in parts or not parts:
            raise _Unknown(f"{written} names nothing", "write ${name}; ${ itself is $${")
        variables = self.raw.get("vars")
        if isinstance(variables, dict) and any(".".join(parts[:n]) in variables for n in range(1, len(parts) + 1)):
            parts = ["vars", *parts]
        holder: Any = self.raw
        path: Path = ()
        while parts:
            step, parts = self._step(holder, path, parts, name)
            path, holder = (*path, step), holder[step]
            if path[:1] == ("vars",) and len(path) == 2:
                self.used.add(str(step))
            if parts and isinstance(holder, str) and is_reference(holder):
                holder = self._at(path, holder, written)  # and further on into what became of it
        return self._at(path, holder, written), path

    def _at(self, path: Path, holder: Any, written: str) -> Any:
        if path in self._waiting:
            loop = [*self._waiting[self._waiting.index(path) :], path]
            through = [dotted(each) for each in loop if each == path or isinstance(self._raw_at(each), str)]
            raise _Unknown(f"{written} leads back to itself: {' -> '.join(through)}")
        value = self.at(path, holder)
        if self.document.is_broken(path) or any(place[: len(path)] == path for place in self.document.broken):
            raise _Unknown
        return value

    def _raw_at(self, path: Path) -> Any:
        value: Any = self.raw
        for step in path:
            value = value[step]
        return value

    def _step(self, holder: Any, path: Path, parts: list[str], name: str) -> tuple[str | int, list[str]]:
        try:
            step, rest = step_into(holder, path, parts)
        except LeadsNowhere as error:
            raise _Unknown(f"${{{name}}}: {error.message}", error.hint) from None
        if isinstance(holder, dict) and step not in holder:
            known = did_you_mean(name, self._names())
            if name.startswith("env") or not re.search(r"[^\w.\-\"]", name):
                raise _Unknown(f"there is no variable and no value called {name!r}", known)
            hint = known if known.startswith("did you mean") else "there is no arithmetic: give each value its own name"
            raise _Unknown(f"there is no variable and no value called {name!r}", hint)
        return step, rest

    def _names(self) -> list[str]:
        """What a reference may name: of large configs, the first."""
        variables = self.raw.get("vars")
        own = [str(name) for name in variables] if isinstance(variables, dict) else []
        if own and len(own) > _SUGGESTED:
            return own[:_SUGGESTED]
        rest = (dotted(path) for path in _paths({k: v for k, v in self.raw.items() if k != "vars"}, ()))
        return [*own, *(path for _, path in zip(range(_SUGGESTED), rest, strict=False))]

    def _origin(self, path: Path) -> Mark | None:
        """Where that is written in the end which stands at a path."""
        found = self.document.origins.get(path)
        return found.mark if found else self.document.mark(path) if path else None

    def _copy(self, value: Any, to: Path, source: Path, origin: Origin) -> Any:
        """A value of its own for another place, with the origins of all that is in it."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._too_much(to, f"more than {MAX_NODES} values, with all variables written out")
        if len(to) >= MAX_DEPTH:
            self._too_much(to[:4], f"nested more than {MAX_DEPTH} deep, with all variables written out")
        self.document.origins[to] = origin
        steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        copied = {}
        for key, item in steps:
            place = (*source, key)
            inner = Origin(origin.written, self._origin(place) if source else origin.mark)
            copied[key] = self._copy(item, (*to, key), place, inner)
        if isinstance(value, list):
            return list(copied.values())
        return copied if isinstance(value, dict) else value

    def _too_much(self, path: Path, message: str) -> None:
        raise ConfigError(
            [*self.document.problems, Problem(message, dotted(path), self.document.mark(path), "use fewer variables")]
        )


def _variable_of_the_environment(name: str, default: str | None) -> str:
    if not name:
        raise _Unknown("${env:} names no variable of the environment", "for example ${env:HOME} or ${env:HOME:default}")
    text = os.environ.get(name) or default
    if text is None:
        how = "set, but empty" if name in os.environ else "not set"
        near = did_you_mean(name, os.environ)
        cure = near if near.startswith("did you mean") else f"set it, or give a default: ${{env:{name}:default}}"
        raise _Unknown(f"the environment variable {name} is {how}", cure)
    if not text.isprintable():
        raise _Unknown(f"the environment variable {name} holds characters that a config cannot")
    return text


def _check_names(document: Document, variables: dict[str, Any], used: set[str]) -> None:
    """Variables whose names no reference can write, and those of the config itself that nothing uses."""
    root = document.mark(())
    for name in variables:
        path = ("vars", name)
        mark = document.key_mark(path)
        if not _NAME.fullmatch(name):
            message = f"a variable is called by letters, digits, _ and -, got {name!r}"
            document.problems.append(Problem(message, dotted(path), mark))
        elif (
            name not in used
            and name not in document.inherited
            and (not mark or not root or not mark.line or mark.file == root.file)
        ):
            others = (used | document.inherited) - {name}
            near = did_you_mean(name, others) if others else ""
            hint = near if near.startswith("did you mean") else f"remove it, or write ${{{name}}}"
            document.problems.append(Problem(f"nothing uses the variable {name!r}", dotted(path), mark, hint))


def _paths(value: Any, path: Path) -> Iterator[Path]:
    if path:
        yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in steps:
        yield from _paths(item, (*path, key))


def _spelled(value: float | None) -> str:
    """A number, a boolean or null as YAML has it."""
    return describe(value)
