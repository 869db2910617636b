"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TextIO

from layernet.errors import Paint, Role, UsageError

_COLOURS: dict[Role, str] = {"error": "1;31", "place": "1", "gutter": "34", "caret": "1;31", "note": "36", "help": "32"}

KERNELS = ("auto", "numpy", "numba")


def add_config(parser: argparse.ArgumentParser) -> None:
    """The config file, and overrides of its values."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML config file")
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """Overrides of config values."""
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a value, e.g. --set train.epochs=2; may be given several times",
    )


def terminal_width() -> int | None:
    """How wide the terminal is that is written to; None for a file or a pipe, where lines stay whole."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def paint_for(stream: TextIO) -> Paint | None:
    """How messages are coloured for a terminal; None for files and pipes, and where NO_COLOR asks for none."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return None
    return lambda role, text: f"\x1b[{_COLOURS[role]}m{text}\x1b[0m" if text else ""


def add_compute(parser: argparse.ArgumentParser) -> None:
    """What to compute with, each short for a --set."""
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or auto, as in a config")
    parser.add_argument("--kernels", choices=KERNELS, help="the CPU's kernels, as in a config")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the kernels, as in a config")


def chosen(args: argparse.Namespace) -> dict[str, object]:
    """What add_compute's arguments say of a config's values."""
    given = {"device": args.device, "kernels": args.kernels, "threads": args.threads}
    return {name: value for name, value in given.items() if value is not None}


def with_chosen(args: argparse.Namespace) -> list[str]:
    """The overrides of --set, and after them those of add_compute's arguments."""
    return [*args.overrides, *(f"{name}={value}" for name, value in chosen(args).items())]


def write_file(path: Path, text: str) -> None:
    """Write a text file, all of it or nothing. Raises UsageError where that cannot be."""
    from layernet.train.files import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of one input example, from `8,8,4`. Raises UsageError."""
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"--shape must be the shape of one input example, got {text!r}", "for example --shape 8,8,4")
    return shape
