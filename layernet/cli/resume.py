"""`layernet resume RUN`."""

from __future__ import annotations

import argparse

from layernet.cli.common import add_compute, add_set, with_chosen

HELP = "go on with a run that ended early, or for longer: --set train.epochs=50"
EXAMPLE = "layernet resume runs/digits_convnet-001"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("directory", metavar="RUN", help="a run directory")
    add_set(parser)
    add_compute(parser)


def run(args: argparse.Namespace) -> int:
    """Train on; the exit code."""
    from layernet.train.experiment import Experiment

    Experiment.resume(args.directory, overrides=with_chosen(args))
    return 0
