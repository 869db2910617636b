"""Signals that end training: the first is noted and answered at the next step or batch, the second acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from layernet.errors import Interrupted

_NUMBERS = [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Signals:
    """Notes the first SIGINT, SIGTERM or SIGHUP within `noted`; whichever comes second acts as it always would.

    One that was ignored before stays so: under nohup, SIGHUP.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        self._noting = False

    def check(self) -> None:
        """Raise Interrupted where one has come."""
        if self._came is not None:
            raise Interrupted(self._came)

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

        for number in _NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
        self._noting = True
        try:
            yield
        finally:
            self._noting = False
            restore()
