"""`layernet predict RUN FILE ...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from layernet.cli.common import add_compute, chosen
from layernet.errors import DataError, UsageError

HELP = "predict images, folders of images, arrays or tables with a run's net; class names come from its checkpoint"
EXAMPLE = "layernet predict runs/digits_convnet-001 photos --out photos.csv --skip-bad"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("directory", metavar="RUN", help="a run directory")
    parser.add_argument(
        "sources",
        metavar="FILE",
        nargs="+",
        help="an image; a folder, with those in it; an .npz file with an array x (N, ...), an .npy file, or a .csv "
        "with a line an example: examples as the training data has them, before its transforms",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write all of it to FILE, a .csv or .json")
    parser.add_argument("--top", metavar="K", type=int, default=5, help="the K likeliest classes (default: 5)")
    parser.add_argument(
        "--checkpoint", metavar="WHICH", help="last, best, or a step's number (default: best if there is one)"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and count them")
    add_compute(parser)


def run(args: argparse.Namespace) -> int:
    """Predict; the exit code."""
    from layernet.report.predictions import table, write
    from layernet.train.predict import Predictor

    if args.top < 1:
        raise UsageError(f"--top must be at least 1, got {args.top}")
    if args.out is not None and args.out.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"--out writes .csv or .json, got {args.out}")
    predictor = Predictor.open(args.directory, args.checkpoint, chosen(args))
    skipped = 0

    def skip(error: DataError) -> None:
        nonlocal skipped
        skipped += 1
        print(f"skipped: {error.message}", file=sys.stderr)

    found = [
        prediction
        for source in args.sources
        for prediction in predictor.predict(source, args.top, skip if args.skip_bad else None)
    ]
    if skipped:
        print(f"skipped {skipped} of {skipped + len(found)} files", file=sys.stderr)
    if not found:
        raise DataError("nothing could be predicted", "no example could be read")
    if args.out is None:
        print(table(found, predictor.values))
    else:
        write(args.out, found, predictor.values)
        print(f"{len(found)} predictions in {args.out}")
    return 0
