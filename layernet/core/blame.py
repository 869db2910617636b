"""Where an exception comes from: which part of an experiment raised it, in which line of its author's file."""

from __future__ import annotations

import os
import re
import sys
import traceback
from types import FrameType

from layernet.core.configurable import Configurable
from layernet.core.context import Context
from layernet.core.layer import Layer

_OURS = {
    "layernet",
    "numpy",
    "cupy",
    "cupyx",
    "cupy_backends",
    "yaml",
    "pydantic",
    "pydantic_core",
    "rich",
    "PIL",
    "threadpoolctl",
}


def blame(error: BaseException) -> str | None:
    """`layer conv1 (MyConv): backward failed: KeyError: 'x' (my_layers.py:12)`: what happened in code of the user's.

    None where none of it was running: then the mistake is in layernet, and its traceback is what helps. Read from the
    traceback alone, from where the exception was caught, so that what runs without one pays nothing.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    theirs = [index for index, (frame, _) in enumerate(frames) if is_theirs(frame)]
    if not theirs:
        return None
    entry = next(index for index in reversed(theirs) if index - 1 not in theirs)
    own = [index for index in theirs if "site-packages" not in frames[index][0].f_code.co_filename]
    where = _place_of(*frames[(own or theirs)[-1]])
    last, line = frames[-1]
    if last.f_globals.get("__name__", "").partition(".")[0] == "layernet":
        where += f", from {_place_of(last, line)}"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, TypeError) and (found := re.search(r"'(Param|Buffer|Const)'", what)):
        what += f"; a {found[1]}'s array is .data"
    return f"{_call(frames, entry)} failed: {what} ({where})"


def is_theirs(frame: FrameType) -> bool:
    """Whether what runs there is neither layernet's, nor of a library that it calls."""
    module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return module not in _OURS and module not in sys.stdlib_module_names


def _call(frames: list[tuple[FrameType, int]], entry: int) -> str:
    """What layernet had called: the innermost layer's pass, or a method of another part, or a function."""
    for frame, _ in reversed(frames):
        if frame.f_code in _PASSES:
            layer: Layer = frame.f_locals["child"]
            return f"{layer.label}: {_PASSES[frame.f_code]}"
    frame = frames[entry][0]
    name, part = frame.f_code.co_name, frame.f_locals.get("self")
    if isinstance(part, Layer):
        return f"{part.label}: {name}"
    return f"{type(part).__name__}.{name}" if isinstance(part, Configurable) else name


def _place_of(frame: FrameType, line: int) -> str:
    return place(frame.f_code.co_filename, line)


def place(file: str, line: int | None) -> str:
    """`my_layers.py:12`: how messages call a line, the file relative to the working directory where it is below it."""
    relative = os.path.relpath(file) if os.path.isabs(file) else file
    return f"{file if relative.startswith('..') else relative}:{line}"


_PASSES = {Context._run.__code__: "forward", Context.backward.__code__: "backward"}
