"""Compiling everything before it is needed."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from layernet.backend import compiled
from layernet.backend.compiled import launch


def kernels() -> Iterator[launch.Routine]:
    """Every kernel of this room, and what they call by its address."""
    for found in pkgutil.iter_modules(compiled.__path__):
        module = importlib.import_module(f"{compiled.__name__}.{found.name}")
        for value in vars(module).values():
            for item in value.values() if isinstance(value, dict) else [value]:
                if isinstance(item, launch.Routine) and item.function.__module__ == module.__name__:
                    yield item


def compile_all() -> tuple[int, int]:
    """(how many kernels there are, how many of them had to be compiled)."""
    missing = 0
    every = list(kernels())
    for kernel in every:
        missing += not kernel.kept
        kernel.address  # noqa: B018
    launch.ready()
    return len(every), missing
