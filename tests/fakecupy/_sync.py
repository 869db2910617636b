"""Counts what makes the host wait for the device, and forbids it on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_watchers: ContextVar[tuple[Counter[str], ...]] = ContextVar("watchers", default=())
_forbidden: ContextVar[bool] = ContextVar("forbidden", default=False)


class DeviceSynchronized(RuntimeError):
    """The host would have waited for the device where nobody allows it (the name is cupyx's)."""


@contextmanager
def count_syncs() -> Iterator[Counter[str]]:
    """Within it, counts by kind: `float`, `bool`, `get`, `nonzero`, `mask`, ..., and copies `to_device`."""
    counts: Counter[str] = Counter()
    token = _watchers.set((*_watchers.get(), counts))
    try:
        yield counts
    finally:
        _watchers.reset(token)


@contextmanager
def forbid_sync() -> Iterator[None]:
    """Within it, whatever makes the host wait for the device raises DeviceSynchronized."""
    token = _forbidden.set(True)
    try:
        yield
    finally:
        _forbidden.reset(token)


def synchronizes(what: str) -> None:
    """Note that the host waits for the device here."""
    if _forbidden.get():
        raise DeviceSynchronized(
            f"{what} waits for the device: the host stands still until everything before it is done, and a CUDA graph "
            "cannot hold it; keep the value on the device"
        )
    transferred(what)


def transferred(what: str) -> None:
    for counts in _watchers.get():
        counts[what] += 1
