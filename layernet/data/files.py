"""Data sets that are files somewhere: where they are looked for, and how they are read."""

from __future__ import annotations

import gzip
import os
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from layernet.backend import Array
from layernet.data.dataset import InMemory
from layernet.errors import DataError

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20


class NotThere(DataError):
    """A data set's file is absent: nothing is damaged, it has only not been fetched, or not all of it."""


class OnDisk(InMemory):
    """A data set read from the files of one directory: `root`, or else `$LAYERNET_DATA/<folder>`.

    LAYERNET_DATA is `./data` where it is not set.
    """

    folder: str
    """The directory's name under LAYERNET_DATA."""
    source: str
    """Where people get the files."""

    def __init__(self, split: Literal["train", "test"] = "train", root: str | None = None) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be train or test, got {split!r}")
        self.split = split
        self.root = root

    @property
    def directory(self) -> Path:
        """Where the files are looked for."""
        if self.root is not None:
            return Path(self.root).expanduser().absolute()
        return Path(os.environ.get("LAYERNET_DATA") or "data").expanduser().absolute() / self.folder

    def pinned(self) -> dict[str, str]:
        # an absolute LAYERNET_DATA stays unsaid: it is each machine's own way to say where data is
        given = (os.environ.get("LAYERNET_DATA") or "data") if self.root is None else self.root
        return {"root": str(self.directory)} if pin(root=given) else {}

    def find(self, *names: str) -> Path:
        """The first of `names` that is a file in the directory. Raises NotThere, with the cure, when none is."""
        for name in names:
            if (self.directory / name).is_file():
                return self.directory / name
        if self.root is None:
            now = os.environ.get("LAYERNET_DATA") or "not set: ./data"
            where = f"name the directory above {self.folder}/ in LAYERNET_DATA ({now})"
        else:
            where = f"correct root; without root they are looked for in $LAYERNET_DATA/{self.folder}"
        raise NotThere(
            f"{type(self).__name__}: there is no {' or '.join(names)} in {self.directory}",
            f"{self._get()}put the files of {self.source} there, or {where}",
        )

    def _get(self) -> str:
        """The command that downloads the files, where there is one."""
        from layernet.data.sources import SOURCES  # which imports this

        root = "" if self.root is None else f" --root {shlex.quote(str(self.root))}"
        return f"get them with `layernet data get {self.folder}{root}`, " if self.folder in SOURCES else ""


def pin(**paths: str | None) -> dict[str, str]:
    """The relative ones among some paths, made absolute."""
    given = {name: path for name, path in paths.items() if path and not Path(path).expanduser().is_absolute()}
    return {name: str(Path(path).absolute()) for name, path in given.items()}


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed where they are gzip, whatever the file is called.

    Raises DataError, naming the file, for whatever goes wrong in reading them.
    """
    try:
        with path.open("rb") as raw:
            if raw.peek(len(_GZIP))[: len(_GZIP)] == _GZIP:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked  # type: ignore[misc]  # typeshed: GzipFile is an IO in all but name
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, f"is no complete gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def check_size(path: Path, size: int) -> None:
    """Raise DataError where the file can be seen, without reading it, not to hold `size` bytes; gzip hides its size."""
    with reading(path) as stream:
        found = size if isinstance(stream, gzip.GzipFile) else os.fstat(stream.fileno()).st_size
    if found != size:
        raise damaged(path, f"has {found} bytes, expected {size}")


def read_exactly(stream: IO[Any], size: int, path: Path) -> bytearray:
    """The next `size` bytes, which must be the last. Raises DataError for fewer or more.

    Read piece by piece: a header that lies about the size must not make us ask for memory that no data fills.
    """
    content = bytearray()
    while len(content) <= size and (piece := stream.read(_CHUNK)):
        content += piece
    if len(content) != size:
        found = f"more than {size}" if len(content) > size else str(len(content))
        raise damaged(path, f"should hold {size} bytes of data, found {found}")
    return content


def check_labels(path: Path, labels: Array, classes: int) -> None:
    """Raise DataError for a label that is none of 0 .. classes - 1."""
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise damaged(path, f"record {wrong[0]} has label {labels[wrong[0]]}, expected 0 to {classes - 1}")


def damaged(path: Path, what: str) -> DataError:
    """The error for a file that is not what it should be."""
    return DataError(f"{path}: {what}", "download it again")
