"""The checkpoint file: named arrays and plain data in a zip of .npy members, with a checksum and without pickle.

`numpy.load` reads it. Nothing in it is ever imported or executed: the config it holds is text.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from layernet.errors import CheckpointError
from layernet.train.files import atomic_write

FORMAT = 1
_META = "meta.json"
_DIGEST = "sha256"
_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)  # no clock in the file: equal states are equal bytes


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

    def add(self, prefix: str, arrays: dict[str, Any]) -> None:
        """Put arrays under `prefix/`."""
        self.arrays.update({f"{prefix}/{name}": np.asarray(array) for name, array in arrays.items()})


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint atomically and durably. Raises CheckpointError when the disk refuses."""
    try:
        with atomic_write(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            digest = hashlib.sha256()

            def write(name: str, content: bytes) -> None:
                digest.update(f"{name}:{len(content)}:".encode() + content)
                archive.writestr(zipfile.ZipInfo(name, _EPOCH_OF_ZIP), content)

            for name, array in checkpoint.arrays.items():
                write(f"{name}.npy", _encode(array))
            write(_META, json.dumps({"format": FORMAT, **checkpoint.meta}).encode())
            archive.writestr(zipfile.ZipInfo(_DIGEST, _EPOCH_OF_ZIP), digest.hexdigest())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error})", "what was there before is untouched") from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, all of it checked before any of it is used.

    Raises CheckpointError when the file is absent, damaged, or of a format this version does not know.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        digest = hashlib.sha256()
        for name, content in members.items():
            if name != _DIGEST:
                digest.update(f"{name}:{len(content)}:".encode() + content)
        if members[_DIGEST].decode() != digest.hexdigest():
            raise ValueError("its checksum does not fit its content")
        meta = json.loads(members[_META])
        if meta.get("format") != FORMAT:
            raise ValueError(f"it has format {meta.get('format')!r}, this layernet reads format {FORMAT}")
        arrays = {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
            for name, content in members.items()
            if name.endswith(".npy")
        }
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except Exception as error:  # a damaged zip raises nearly anything (EOFError, NotImplementedError, struct.error ...)
        raise CheckpointError(
            f"{path} cannot be read: {error or type(error).__name__}", "it is damaged, or no layernet checkpoint"
        ) from error
    return Checkpoint(arrays, meta)


def _encode(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    # ascontiguousarray would give a number an axis
    np.lib.format.write_array(stream, np.asarray(array, order="C"), allow_pickle=False)
    return stream.getvalue()
