"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import shutil
import sys

from layernet.errors import UsageError


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


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of one input example, from `8,8,4`. Raises UsageError."""
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"--shape must be the shape of one input example, got {text!r}", "for example --shape 8,8,4")
    return shape
