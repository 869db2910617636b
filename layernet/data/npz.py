"""Arrays in a file that numpy wrote."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from layernet.backend import Array, Shape
from layernet.data.dataset import InMemory
from layernet.data.files import pin
from layernet.errors import DataError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Npz(InMemory):
    """Two arrays of an .npz file, as numpy.savez and savez_compressed write it: examples and targets.

    `path`: the file. `x`, `y`: the names of its arrays, (N, *shape) and (N, ...). uint8 x are pixels 0..255, other
    integers stay integers, all else becomes float32; integer y are labels. Several labels an example: y (N, K) of
    floats or booleans, a 1 for each, as BCEWithLogits takes. `classes`: the names of the labels.
    Arrays of Python objects are refused: reading them would run code of the file.
    Raises DataError when the file is absent or damaged, or does not hold two arrays of numbers of one length.
    """

    def __init__(self, path: str, x: str = "x", y: str = "y", classes: list[str] | None = None) -> None:
        self.path = path
        self.names = x, y
        self.classes = classes

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """That of one example, as the file's header says. Raises DataError where it cannot be read."""
        return self._shapes()[0][1:]

    def check(self) -> None:
        self._shapes()

    def __len__(self) -> int:
        return len(self.arrays[1]) if "arrays" in vars(self) else self._shapes()[0][0]

    def load(self) -> tuple[Array, Array]:
        self._shapes()
        x, y = (self._read(name) for name in self.names)
        if y.dtype.kind in "iu":
            y = y.astype(np.int64)
            self._check_labels(y)
        return x, y

    def array(self, name: str) -> Array:
        """One of the file's arrays by itself. Raises DataError where there is none such of numbers."""
        self._shape_of(name)
        return self._read(name)

    def _shapes(self) -> list[Shape]:
        """The shapes of both arrays, from their headers, which must agree with the file's directory."""
        shapes = [self._shape_of(name) for name in self.names]
        if shapes[0][0] != shapes[1][0]:
            counts = " and ".join(f"{shape[0]} in {name!r}" for name, shape in zip(self.names, shapes, strict=True))
            raise DataError(f"{self._file}: examples and targets differ in number: {counts}")
        return shapes

    def _shape_of(self, name: str) -> Shape:
        with self._member(name) as (stream, size):
            shape, _, dtype = _header(stream)
            if dtype.kind not in "biuf":
                raise DataError(f"{self._file}: array {name!r} holds {dtype}", "numbers are needed")
            if not shape:
                raise DataError(f"{self._file}: array {name!r} is a single number", "its first axis is examples")
            expected = stream.tell() + math.prod(shape) * dtype.itemsize
            if size != expected:
                raise DataError(f"{self._file}: array {name!r} has {size} bytes, expected {expected}")
        return shape

    def _read(self, name: str) -> Array:
        with self._member(name) as (stream, _):
            array = npy.read_array(stream, allow_pickle=False)
            stream.read(1)  # the checksum is compared when the end is seen
        return native(array, f"{self._file}: array {name!r}")

    def _check_labels(self, labels: Array) -> None:
        if self.classes is not None and labels.max(initial=0) >= len(self.classes):
            raise DataError(f"{self._file}: {self.names[1]!r} holds label {labels.max()}, classes has {self.classes}")

    def pinned(self) -> dict[str, str]:
        return pin(path=self.path)

    @property
    def _file(self) -> Path:
        return Path(self.path).expanduser().absolute()

    @contextmanager
    def _member(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        """(an array's bytes, how many the file's directory promises). Raises DataError for whatever goes wrong."""
        file = self._file
        if not file.is_file():
            raise DataError(f"Npz: there is no {file}", "correct path; numpy.savez(path, x=..., y=...) writes one")
        try:
            with zipfile.ZipFile(file) as archive:
                held = {member.removesuffix(".npy"): member for member in archive.namelist()}
                if name not in held:
                    found = ", ".join(sorted(held)) or "nothing"
                    raise DataError(f"{file}: there is no array {name!r}, it holds {found}", "name x and y")
                with archive.open(held[name]) as stream:
                    yield stream, archive.getinfo(held[name]).file_size
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            first = str(error).partition("\n")[0]
            raise DataError(f"{file}: is no sound .npz file, array {name!r} ({first})", "write it again") from error


def native(array: Array, what: str) -> Array:
    """Integers as they are, all else as float32. Raises DataError, beginning with `what`, where that cannot hold it."""
    if array.dtype.kind in "iu":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not (np.isfinite(single) == np.isfinite(array)).all():
        raise DataError(f"{what} holds numbers beyond float32", "scale it")
    return single


def _header(stream: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    """(shape, whether in Fortran order, type). Raises ValueError."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the array format")
    shape, fortran, dtype = _HEADERS[version](stream)
    if any(n < 0 for n in shape):
        raise ValueError(f"shape {shape}")
    return shape, fortran, dtype
