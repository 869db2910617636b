"""Kernels that numba compiles for the processor at hand. Only this room imports numba, and only where it is used."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform


@functools.cache
def problem() -> str | None:
    """Why the compiled kernels cannot be used here; None where they can. Starts numba's threads."""
    try:
        import numba
    except ImportError as error:
        return f"numba cannot be imported ({error})"
    if _lacks_fma():
        return "this processor has no fused multiply-add, without which numpy is faster"
    _offer_tbb()
    try:
        numba.get_num_threads()  # starts them
        layer = numba.threading_layer()
    except ValueError as error:  # NUMBA_THREADING_LAYER names one that is not there
        return f"numba has no threads ({str(error).strip().splitlines()[0]})"
    if layer not in ("omp", "tbb"):
        lacks = "it lacks tbb or OpenMP (libgomp1 on Debian, libomp on macOS)"
        return f"numba's threads are those of {layer!r}, which take longer to start than kernels to run: {lacks}"
    return None


CURE = "pip install 'layernet[fast]'"
"""What mends most problems: it brings numba, and on Linux the threads of tbb."""


def _lacks_fma() -> bool:
    """Whether products and sums would be calls of a function. LAYERNET_LANES, which tests set, has it so."""
    if platform.machine() not in ("x86_64", "AMD64") or "LAYERNET_LANES" in os.environ:
        return False
    import llvmlite.binding as llvm

    return not llvm.get_host_cpu_features().get("fma")


def _offer_tbb() -> None:
    """Load the library of the package tbb, where pip put it: the loader of shared libraries does not look there."""
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("libtbb.so.12", "libtbb.12.dylib", "tbb12.dll"):
            try:
                ctypes.CDLL(str(file.locate()))
            except OSError:  # of another system: numba will take other threads
                return
