"""Writing files so that a crash at any moment leaves the old one or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: there, nothing is locked
    fcntl = None  # type: ignore[assignment]

from layernet.errors import LayernetError, UsageError

_DEVICES = (Path("/dev"), Path("/dev/fd"))


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes its place at `path`, durably, when the block ends well, and vanishes otherwise.

    A link stays one, to the new file. What is no file, as a pipe or /dev/stdout, is written to as it is.
    """
    if path.exists() and (not path.is_file() or path.parent in _DEVICES):
        with open(path, "wb") as stream:
            yield stream
        return
    if path.is_symlink():
        path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)  # the rename itself


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


@contextmanager
def saying(path: Path) -> Iterator[None]:
    """Within it, what the system refuses becomes one clear line. Raises LayernetError."""
    try:
        yield
    except OSError as error:
        raise LayernetError(
            f"{error.filename or path} cannot be written: {error.strerror or error}",
            "what was saved before is untouched",
        ) from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Within it, no other process writes in the directory.

    The lock is the system's, on the file `.lock`, which says whose it is: a process that died has none, however it
    died. Raises UsageError where another process has it, and where the directory cannot be written.
    """
    try:
        stream = open(directory / ".lock", "a+")  # noqa: SIM115
    except OSError as error:
        hint = "make it writable, or go on with a copy of it"
        raise UsageError(f"{directory} cannot be written: {error.strerror}", hint) from error
    with stream:
        try:
            if fcntl is not None:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            owner = stream.read().strip()
            hint = f"wait until it has ended, or end it: kill {owner}" if owner else "wait until it has ended"
            raise UsageError(f"{directory} is in use by process {owner or 'of another'}", hint) from error
        except OSError:  # a file system without locks
            pass
        with suppress(OSError):  # who it is, is for messages
            stream.truncate(0)
            stream.write(f"{os.getpid()}\n")
            stream.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                stream.truncate(0)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
