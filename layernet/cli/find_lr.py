"""`layernet find-lr CONFIG`."""

from __future__ import annotations

import argparse

from layernet.cli.common import add_compute, add_config, with_chosen

HELP = "find a learning rate: train a little while it grows, and look where the loss falls fastest"
EXAMPLE = "layernet find-lr configs/digits_convnet.yaml --csv lr.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config(parser)
    add_compute(parser)
    parser.add_argument("--low", type=float, metavar="LR", default=1e-6, help="where it begins (default: 1e-6)")
    parser.add_argument("--high", type=float, metavar="LR", default=10.0, help="where it ends (default: 10)")
    parser.add_argument("--steps", type=int, metavar="N", default=100, help="updates on the way (default: 100)")
    parser.add_argument("--csv", metavar="FILE", help="also write every step: lr, loss, smoothed")


def run(args: argparse.Namespace) -> int:
    """Sweep and print; the exit code. Makes no run."""
    from pathlib import Path

    from layernet.cli.common import write_file
    from layernet.train.experiment import Experiment
    from layernet.train.find_lr import range_test

    found = range_test(Experiment.load(args.config, with_chosen(args)), args.low, args.high, args.steps)
    if args.csv:
        write_file(Path(args.csv), found.csv())
    print(found.table())
    return 0
