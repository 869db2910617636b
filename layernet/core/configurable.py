"""Everything that a config can name: its constructor arguments are its schema and its description.

A user's class needs no `super().__init__()` and no registration: the arguments are captured before `__init__` runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, Self


class Configurable:
    """A part of an experiment that is made from plain annotated constructor arguments."""

    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        try:
            bound = _signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:  # copy and pickle make bare objects; for a caller, __init__ raises the same error itself
            return self
        self._arguments = dict(list(bound.arguments.items())[1:])
        for name, parameter in _signature(cls.__init__).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:  # given by name, so they are arguments like the others
                self._arguments |= self._arguments.pop(name, {})
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments as they were given; defaults are left out."""
        return dict(self._arguments)

    def clone(self) -> Self:
        """A new instance from the same arguments; layers among them are cloned too."""
        return type(self)(**{name: _clone(value) for name, value in self._arguments.items()})

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())
        return f"{type(self).__name__}({given})"


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _clone(value: Any) -> Any:
    if isinstance(value, Configurable):
        return value.clone()
    if isinstance(value, list | tuple):
        return type(value)(_clone(item) for item in value)
    if isinstance(value, dict):
        return {key: _clone(item) for key, item in value.items()}
    return value
