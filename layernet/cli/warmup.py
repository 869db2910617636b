"""`layernet warmup`."""

from __future__ import annotations

import argparse
import time

HELP = "compile all kernels for this machine now, so that no training waits for them"
EXAMPLE = "layernet warmup"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""


def run(args: argparse.Namespace) -> int:
    """Compile and say how long it took; the exit code."""
    start = time.perf_counter()
    from layernet.backend.device import get_device

    get_device("cpu", "numba")  # says what is missing
    from layernet.backend.compiled.cache import folder
    from layernet.backend.compiled.warmup import compile_all

    count, missing = compile_all()
    took = time.perf_counter() - start
    print(f"{count} kernels, {missing} of them compiled now, in {took:.1f} s; kept in {folder()}")
    return 0
