"""`layernet eval RUN`."""

from __future__ import annotations

import argparse
import json
from math import isfinite

from layernet.cli.common import add_compute, chosen

HELP = "evaluate a run's checkpoint on one of its data sets"
EXAMPLE = "layernet eval runs/digits_convnet-001 --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("directory", metavar="RUN", help="a run directory")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    parser.add_argument(
        "--checkpoint", metavar="WHICH", help="last, best, or a step's number (default: best if there is one)"
    )
    add_compute(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; the exit code."""
    from layernet.train.console import values
    from layernet.train.experiment import Experiment

    found = Experiment.open(args.directory, args.checkpoint, chosen(args)).evaluate(args.split)
    row = {f"{args.split}.{name}": value for name, value in found.items()}
    print(
        json.dumps({name: value if isfinite(value) else None for name, value in row.items()})
        if args.json
        else values(row)
    )
    return 0
