"""`layernet show CONFIG`."""

from __future__ import annotations

import argparse

from layernet.cli.common import add_config

HELP = "print a config with everything it extends, its variables and all defaults, and where each value comes from"
EXAMPLE = "layernet show configs/mnist_lenet.yaml --set train.epochs=2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config(parser)
    parser.add_argument("--plain", action="store_true", help="without the comments that say where values come from")


def run(args: argparse.Namespace) -> int:
    """Print it; the exit code."""
    from layernet.config.experiment import load_config
    from layernet.report.resolved import show

    print(show(load_config(args.config, args.overrides), sources=not args.plain))
    return 0
