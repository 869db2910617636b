"""Arguments that several commands share."""

from __future__ import annotations

import argparse


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
