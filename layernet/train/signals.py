"""Signals that end training: the first is noted and answered after the step or batch, the second acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from layernet.errors import Interrupted

T = TypeVar("T")

_NUMBERS = [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Signals:
    """Notes the first SIGINT, SIGTERM or SIGHUP within `noted`; whichever comes second acts as it always would.

    One that was ignored before stays so: under nohup, SIGHUP.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        self._noting = self._waiting = False

    def check(self) -> None:
        """Raise Interrupted where one has come."""
        if self._came is not None:
            raise Interrupted(self._came)

    def between(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches. A signal is answered before each of them and while it is waited for: Interrupted."""
        while True:
            self.check()
            self._waiting = True
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._waiting = False
            yield batch

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Take notes within; nothing changes in another thread than the main one, or within another `noted`."""
        if self._noting or threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

        def note(number: int, frame: FrameType | None) -> None:
            self._came = number
            restore()  # whichever comes second
            if self._waiting:
                self.check()

        for number in _NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
        self._noting = True
        try:
            yield
        finally:
            self._noting = False
            restore()
