"""What a class of the user's owes to the base that it subclasses: methods that are there, and take what they are given.

Read from signatures, before anything runs; a wrong one would show as a TypeError from within layernet.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from layernet.core.blame import place

_ASKED = ("__call__", "__len__")  # of the methods with such names, those that layernet calls
_ELSEWHERE = {"factor": "__call__", "update": "step", "__call__": "with_target"}
"""Methods that may be left out by who overrides their caller."""
_MAY_LACK = {"Layer": ("forward", "backward")}
"""A layer can be looked at (`inspect`, `layers`) while it is being written, and one before all that learns is never
gone back through."""


def faults(cls: type) -> list[str]:
    """What is wrong with the methods of a class, each with the cure: `Mine.forward must take (self, x, ctx), ...`."""
    if _is_ours(cls):
        return []
    found = [_misfit(cls, name, ours, theirs) for name, ours, theirs in _overridden(cls)]
    missing = _missing(cls)
    owed = [f"{cls.__name__} needs {', '.join(missing)}{_where(cls)}"] if missing else []
    return [*owed, *(fault for fault in found if fault)]


def _misfit(cls: type, name: str, ours: FunctionType, theirs: FunctionType) -> str | None:
    """What to say where a method cannot be called as layernet calls the one that it overrides."""
    expected = inspect.signature(ours).parameters.values()
    if any(parameter.kind is not parameter.POSITIONAL_OR_KEYWORD for parameter in expected):
        return None
    actual = inspect.signature(theirs)
    try:
        actual.bind(*expected)
    except TypeError:
        code = theirs.__code__
        takes = ", ".join(actual.parameters)
        return (
            f"{cls.__name__}.{name} must take ({', '.join(parameter.name for parameter in expected)}), "
            f"it takes ({takes}) ({place(code.co_filename, code.co_firstlineno)})"
        )
    return None


def _overridden(cls: type) -> Iterator[tuple[str, FunctionType, FunctionType]]:
    """(name, layernet's method, the user's in its place)."""
    for name in dict.fromkeys(name for base in cls.__mro__ if _is_ours(base) for name in vars(base)):
        theirs = inspect.getattr_static(cls, name)
        ours = next(vars(base)[name] for base in cls.__mro__ if _is_ours(base) and name in vars(base))
        if _is_asked(name) and theirs is not ours and _is_plain(theirs) and _is_plain(ours):
            yield name, ours, theirs


def _missing(cls: type) -> list[str]:
    """Methods that layernet calls and that nobody wrote; `shape` of a data set too, where no constructor can set it."""
    missing = []
    for base in cls.__mro__:
        for name, method in vars(base).items() if _is_ours(base) else ():
            if inspect.getattr_static(cls, name) is not method or not _is_asked(name) or not _refuses(method):
                continue
            caller = _ELSEWHERE.get(name)
            excused = name in _MAY_LACK.get(base.__name__, ()) or any(
                caller in vars(own) for own in cls.__mro__ if not _is_ours(own)
            )
            if not excused:
                missing.append(name)
        if base.__name__ == "Dataset" and _is_ours(base) and missing:
            made = _is_plain(inspect.getattr_static(cls, "__init__"))
            missing = missing if made or hasattr(cls, "shape") else ["shape", *missing]
    return missing


def _refuses(method: Any) -> bool:
    return _is_plain(method) and "NotImplementedError" in method.__code__.co_names


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "layernet"


def _is_asked(name: str) -> bool:
    return not name.startswith("_") or name in _ASKED


def _is_plain(method: Any) -> bool:
    return isinstance(method, FunctionType)


def _where(cls: type) -> str:
    try:
        file, line = inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # typed in, or made by a program
        return ""
    return f" ({place(file, line)})" if file else ""
