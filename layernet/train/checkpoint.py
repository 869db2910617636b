"""The checkpoint file: named arrays and plain data in a zip of .npy members, with a checksum and without pickle.

`numpy.load` reads it. Nothing in it is ever imported or executed: the config it holds is text. A file is trusted in
nothing: sizes are compared before memory is asked for, members are read to their end before they are looked at, and
headers are matched, not evaluated.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from layernet.errors import CheckpointError
from layernet.train.files import atomic_write

FORMAT = 1
_META = "meta.json"
_DIGEST = "sha256"
_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)  # no clock in the file: equal states are equal bytes
_FLAGS = 0x808
"""Those of a member that may be set: its name is not ASCII; its sizes stand behind it, as where seeking failed."""

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(rb"\{'descr': '([<>|=][biufcSU]\d{1,6})', 'fortran_order': False, 'shape': \(([0-9, ]*)\), \} *\n")


@dataclass
class Checkpoint:
    """Everything that a run needs to go on: arrays by name, and plain data that JSON can hold."""

    arrays: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays under `prefix/`, by the rest of their names."""
        return {
            name.removeprefix(f"{prefix}/"): array
            for name, array in self.arrays.items()
            if name.startswith(f"{prefix}/")
        }

    def add(self, prefix: str, arrays: Mapping[str, Any]) -> None:
        """Put arrays under `prefix/`."""
        self.arrays.update({f"{prefix}/{name}": np.asarray(array) for name, array in arrays.items()})


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint atomically and durably.

    Raises CheckpointError when the disk refuses, and for what `load` would not read: an array that does not hold
    numbers or text, a name that climbs out of its group.
    """
    for name, array in checkpoint.arrays.items():
        if array.dtype.kind not in "biufcSU" or not _is_plain(name):
            raise CheckpointError(f"{name!r} of {array.dtype} cannot be kept in a checkpoint", "keep arrays of numbers")
    try:
        with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            digest = hashlib.sha256()

            def write(name: str, *parts: Any) -> None:
                info = zipfile.ZipInfo(name, _EPOCH_OF_ZIP)
                info.file_size = sum(len(part) for part in parts)
                digest.update(f"{name}:{info.file_size}:".encode())
                with archive.open(info, "w") as member:
                    for part in parts:
                        digest.update(part)
                        member.write(part)

            for name, array in checkpoint.arrays.items():
                write(f"{name}.npy", *_encode(array))
            write(_META, json.dumps({"format": FORMAT, **checkpoint.meta}).encode())
            archive.writestr(zipfile.ZipInfo(_DIGEST, _EPOCH_OF_ZIP), digest.hexdigest())
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written: {error.strerror or error}", "the checkpoints of before are untouched"
        ) from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, all of it checked before any of it is used.

    Raises CheckpointError when the file is absent, damaged, or of a format this version does not know.
    """
    try:
        with open(path, "rb") as stream:
            return _read(stream)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}", "let your user read it") from error
    except Exception as error:  # a damaged zip raises nearly anything (EOFError, NotImplementedError, struct.error ...)
        raise CheckpointError(
            f"{path} cannot be read: {error or type(error).__name__}", "it is damaged, or no layernet checkpoint"
        ) from error


def _read(stream: IO[bytes]) -> Checkpoint:
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        _check_members(infos, os.fstat(stream.fileno()).st_size)
        digest, found = hashlib.sha256(), Checkpoint()
        for info in infos[:-2]:
            content = bytearray(archive.read(info))  # to its end, so that its CRC is checked
            digest.update(f"{info.filename}:{len(content)}:".encode())
            digest.update(content)
            found.arrays[info.filename.removesuffix(".npy")] = _decode(info.filename, content)
        text, expected = archive.read(infos[-2]), archive.read(infos[-1])
        digest.update(f"{_META}:{len(text)}:".encode() + text)
    if expected != digest.hexdigest().encode():
        raise ValueError("its checksum does not fit its content")
    found.meta = json.loads(text)
    if not isinstance(found.meta, dict) or found.meta.get("format") != FORMAT:
        form = found.meta.get("format") if isinstance(found.meta, dict) else None
        raise ValueError(f"it has format {form!r}, this layernet reads format {FORMAT}")
    return found


def _check_members(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse all that `save` never writes, before anything is read: bombs, members twice, names that climb."""
    names = [info.filename for info in infos]
    if names[-2:] != [_META, _DIGEST]:
        raise ValueError(f"it does not end with {_META} and {_DIGEST}")
    if len(set(names)) < len(names):
        raise ValueError("it holds a name twice")
    for number, info in enumerate(infos, start=1):
        name = info.orig_filename  # zipfile cuts names at a NUL
        if number <= len(infos) - 2 and not (name.endswith(".npy") and _is_plain(name)):
            raise ValueError(f"{name!r} is no name of an array")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"{name!r} is compressed")
        if info.flag_bits & ~_FLAGS:
            raise ValueError(f"{name!r} has flags {info.flag_bits:#x}")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its members are larger than the file")


def _is_plain(name: str) -> bool:
    """Whether a name goes down only: `net/conv1.weight`."""
    return not any(part in ("", ".", "..") for part in name.split("/")) and not re.search(r"[\\\0:]", name)


def _encode(array: np.ndarray[Any, Any]) -> tuple[bytes, memoryview[Any]]:
    """Header and content of a .npy member; the content is not copied where it lies in order already."""
    array = np.asarray(array, order="C")  # ascontiguousarray would give a number an axis
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
    text += b" " * (-(len(_MAGIC) + 2 + len(text) + 1) % 64) + b"\n"
    header = _MAGIC + len(text).to_bytes(2, "little") + text
    return header, array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")


def _decode(name: str, content: bytearray) -> np.ndarray[Any, Any]:
    """The array of a .npy member, in its memory. Raises ValueError for all but what `_encode` writes."""
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(content[len(_MAGIC) : start], "little")
    header = _HEADER.fullmatch(content[start:end])
    if content[: len(_MAGIC)] != _MAGIC or header is None:
        raise ValueError(f"{name!r} holds no array of numbers")
    kind = np.dtype(header[1].decode())
    shape = tuple(int(extent) for extent in header[2].decode().split(",") if extent.strip())
    if kind.itemsize * math.prod(shape) != len(content) - end:
        raise ValueError(f"{name!r} promises {kind} of shape {shape}, and has {len(content) - end} bytes")
    flat: np.ndarray[Any, Any] = np.frombuffer(content, kind, offset=end)
    return flat.reshape(shape)
