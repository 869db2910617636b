"""Random layers: which of their branches were seen, and the same random numbers for a batch and its parts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.random import Stream
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.testing.passes import STEP

Fact = tuple[Any, ...]
"""A line that ran, or what `ctx.save` kept: None, a flag, a word, a mask with some or with no element set."""


class Incomparable(Exception):
    """What is drawn for a part of a batch is no part of what is drawn for the batch."""


def facts_of(net: Net, x: Array, training: bool) -> set[Fact]:
    """What a pass through the first layer of a net, forward and backward, went through."""
    (layer, *_) = net.layers
    facts: set[Fact] = set()

    def passes() -> None:
        tape = net.forward(x, training=training, step=STEP, needs_input_grad=not layer.reader.integer_input)
        assert tape.root is not None
        facts.update(_kept(tape.root, "", net))
        net.backward(tape, net.device.xp.ones_like(tape.output), update_buffers=False)

    return facts | _lines_run(layer, passes)


def _kept(call: Context, place: str, net: Net) -> Iterator[Fact]:
    for number, value in enumerate(call._saved or ()):
        yield from _about(value, f"{place}/{number}", net)


def _about(value: Any, place: str, net: Net) -> Iterator[Fact]:
    if isinstance(value, Context):
        yield from _kept(value, f"{place} {value.layer.path if value.layer else ''}", net)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _about(item, f"{place}.{number}", net)
    elif value is None or isinstance(value, bool | str):
        yield place, value
    elif hasattr(value, "dtype") and value.dtype.kind == "b":
        yield from ((place, bool(flag)) for flag in np.unique(net.device.to_numpy(value)))


def _codes(layer: Layer) -> set[CodeType]:
    """The methods of the layer and the layers in it, those of the base class apart."""
    classes = {cls for _, part in layer.walk() for cls in type(part).__mro__ if issubclass(cls, Layer)} - {Layer}
    return {value.__code__ for cls in classes for value in vars(cls).values() if hasattr(value, "__code__")}


def _lines_run(layer: Layer, action: Callable[[], None]) -> set[Fact]:
    codes, found = _codes(layer), set()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        def step(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line":
                found.add((frame.f_code, frame.f_lineno))
            return step

        return step if frame.f_code in codes else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        action()
    finally:
        sys.settrace(before)
    return found


def never_run(layer: Layer, facts: set[Fact]) -> list[str]:
    """The lines of the layer's own forward and backward that are not among the facts, as a note may name them."""
    missing = []
    for method in (type(layer).forward, type(layer).backward):
        code = getattr(method, "__code__", None)
        if code is None:  # wrapped in something
            continue
        lines = {line for *_, line in code.co_lines() if line is not None and line != code.co_firstlineno}
        left = sorted(line for line in lines if (code, line) not in facts)
        if left:
            missing.append(f"{method.__name__}, line {', '.join(str(n - code.co_firstlineno + 1) for n in left)}")
    return missing


class Replay:
    """What a pass draws: remembered for a whole batch, and given again, row by row, for parts of it."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[Any, ...], Array] = {}
        self._rows: slice | None = None
        self._counts: dict[tuple[Any, ...], int] = {}

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within it, a pass draws as ever, and what it draws is kept."""
        with self._patched(None):
            yield

    @contextmanager
    def giving(self, rows: slice) -> Iterator[None]:
        """Within it, a pass on these rows gets their part of what was drawn; Incomparable where there is none."""
        with self._patched(rows):
            yield

    @property
    def used(self) -> bool:
        """Whether anything was drawn."""
        return bool(self._drawn)

    def draw(self, place: tuple[Any, ...], fresh: Array) -> Array:
        """The next numbers at a place: `fresh` ones, or those of the rows of the whole batch."""
        number = self._counts[place] = self._counts.get(place, -1) + 1
        if self._rows is None:
            self._drawn[*place, number] = fresh
            return fresh
        whole = self._drawn.get((*place, number))
        if whole is not None and whole.ndim and whole[self._rows].shape == fresh.shape:
            return whole[self._rows]
        if whole is not None and whole.shape == fresh.shape:
            return whole
        raise Incomparable

    @contextmanager
    def _patched(self, rows: slice | None) -> Iterator[None]:
        replay, before = self, Context.rng
        self._rows, self._counts = rows, {}

        def rng(context: Context) -> Any:
            real = before.__get__(context)
            assert context.layer is not None
            return _Replayed(real, (context.layer.path, *context._repeats()), replay)

        Context.rng = property(rng)  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            Context.rng = before  # type: ignore[method-assign]


class _Replayed:
    """A stream whose numbers go through a Replay."""

    def __init__(self, stream: Stream, place: tuple[Any, ...], replay: Replay) -> None:
        self._stream, self._place, self._replay = stream, place, replay

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stream, name)
        return lambda *args, **kwargs: self._replay.draw(self._place, method(*args, **kwargs))
