"""Where compiled kernels are kept: a folder of our own for each state of this room, numba and the processor.

numba compares the file that a kernel stands in with what it compiled; of the modules that the file imports it knows
nothing. So the folder's name is a digest of them all, and whatever changes, kernels are compiled anew.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba

from layernet.backend.compiled.lanes import LANES

_lock = threading.RLock()


@cache
def folder() -> Path:
    """The folder of this machine's kernels; it exists and can be written.

    Under $NUMBA_CACHE_DIR, else $XDG_CACHE_HOME, else ~/.cache; where none can be written, in a temporary one.
    """
    for root in roots():
        try:
            path = root / "kernels" / fingerprint()
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except OSError:
            continue
        return path
    return _temporary()


def roots() -> Iterator[Path]:
    """Where kernels may be kept, in the order of preference."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen) / "layernet"
    if chosen := os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA"):
        yield Path(chosen) / "layernet"
    try:
        yield Path.home() / ".cache" / "layernet"
    except RuntimeError:  # nobody's home
        return


def _temporary() -> Path:
    """A folder that outlives the process and is nobody else's: what lies in it will be run."""
    owner = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"layernet-{owner}" / "kernels" / fingerprint()
    top = path.parents[1]
    try:
        top.mkdir(mode=0o700, exist_ok=True)
        found = top.lstat()
        if os.name == "posix" and (found.st_uid != owner or found.st_mode & 0o022 or top.is_symlink()):
            raise PermissionError(f"{top} is somebody else's")
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="layernet-kernels-"))
    return path


def fingerprint(room: Path = Path(__file__).parents[1]) -> str:
    """A digest of all that machine code follows from: constants of the reference, too, are compiled into it."""
    digest = hashlib.sha256()
    for file in sorted(room.rglob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    facts = (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, LANES, llvm.get_host_cpu_name())
    digest.update(repr(facts).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _numba_writes_to(path: Path) -> Iterator[None]:
    with _lock:
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(path)
        try:
            yield
        finally:
            numba.config.CACHE_DIR = before


def cached(decorate: Any, function: Any) -> Any:
    """decorate(function, cache=True) with our cache; without any where the disk refuses."""
    if not is_kept(function):
        _announce()
    with _numba_writes_to(folder()):
        try:
            return decorate(cache=True)(function)
        except OSError:  # a full disk: what was compiled cannot be kept
            return decorate(cache=False)(function)


def is_kept(function: Any) -> bool:
    """Whether the function was compiled before, going by the name of numba's index."""
    code = function.__code__
    name = f"{Path(code.co_filename).stem}.{function.__qualname__}-{code.co_firstlineno}."
    return any(path.name.startswith(name) for path in folder().glob("*/*.nbi"))


@cache
def _announce() -> None:
    """Say it once a process: the first step is waiting."""
    print(f"compiling kernels for this machine, once: takes some seconds, kept in {folder()}", file=sys.stderr)
