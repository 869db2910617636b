"""`layernet average RUN` and `layernet average CHECKPOINT CHECKPOINT ... -o OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from layernet.errors import UsageError

HELP = "average the weights of several checkpoints, of one run or of several"
EXAMPLE = "layernet average runs/digits_convnet-001 --checkpoints 100 125 150"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("paths", metavar="RUN|FILE", nargs="+", help="a run directory, or checkpoint files")
    parser.add_argument(
        "--checkpoints",
        metavar="WHICH",
        nargs="+",
        default=[],
        help="of the run: steps, last, best (default: all steps)",
    )
    parser.add_argument("-o", "--out", metavar="OUT", help="where to (default for a run: its checkpoint `average`)")


def run(args: argparse.Namespace) -> int:
    """Average and save; the exit code."""
    from layernet.train import checkpoint
    from layernet.train.average import average_of, checkpoints_of
    from layernet.train.rundir import RunDirectory

    paths = [Path(path) for path in args.paths]
    if len(paths) == 1 and not paths[0].is_file():
        directory = RunDirectory.open(paths[0])
        files = checkpoints_of(directory, args.checkpoints)
        out = Path(args.out) if args.out else directory.checkpoint("average")
        then = "" if args.out else f"; layernet eval {directory.path} --checkpoint average"
    else:
        if args.checkpoints:
            raise UsageError("--checkpoints names those of one run", "give either a run, or files")
        if not args.out:
            raise UsageError("the average of files needs a place", "give one with -o OUT.npz")
        files, out, then = paths, Path(args.out), ""
    checkpoint.save(out, average_of(files))
    print(f"{out}: the mean of {len(files)} checkpoints ({', '.join(file.stem for file in files)}){then}")
    return 0
