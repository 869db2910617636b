"""`layernet train CONFIG`."""

from __future__ import annotations

import argparse

from layernet.cli.common import add_compute, add_config, with_chosen

HELP = "train a net from a config"
EXAMPLE = "layernet train configs/digits_convnet.yaml --set train.epochs=5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config(parser)
    add_compute(parser)
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run directories are made (default: runs)")
    parser.add_argument("--name", help="name of the run (default: that of the config)")


def run(args: argparse.Namespace) -> int:
    """Train; the exit code."""
    from layernet.train.experiment import Experiment

    Experiment.load(args.config, with_chosen(args)).train(args.runs, args.name)
    return 0
