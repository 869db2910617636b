"""Writing files so that a crash at any moment leaves the old one or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes its place at `path`, durably, when the block ends well, and vanishes otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def abandoned(temporary: Path) -> bool:
    """Whether the process that was writing this file in `atomic_write` is no more."""
    number = temporary.name.split(".")[-2]
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except (ValueError, PermissionError):  # no file of ours; somebody else's process
        return False
    return False


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_bytes(path, text.encode())


def keep_as(path: Path, other: Path) -> None:
    """Give a file a second name, in the place of what was there: it stays when the first is replaced."""
    other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except OSError:  # exFAT and many network drives have no hard links
        write_bytes(other, path.read_bytes())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
