"""`layernet gradcheck TARGET ...`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from layernet.cli.common import add_set, parse_shape, write_file
from layernet.errors import UsageError

if TYPE_CHECKING:
    from layernet.testing.report import Report
    from layernet.testing.suite import Job

HELP = (
    "compare gradients with numeric ones, of layers, losses, penalties and configs; "
    "hold layers, losses and penalties to the whole contract"
)
EXAMPLE = "layernet gradcheck configs/my_layers.py:PReLU --shape 8,8,4 --arg init=0.1"
TARGET = """what to check, one thing or several:
a config: each layer alone, then the whole net with its objectives;
a built-in layer, loss or penalty by name (Conv2d, CrossEntropy): its test cases;
all: the test cases of everything built in;
module:Class or file.py:Class, or a name with --shape: a layer (--shape), a loss (--shape, --targets) or a penalty"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("targets", metavar="TARGET", nargs="+", help=TARGET)
    parser.add_argument("--shape", metavar="H,W,C", help="input shape of a layer, or of a loss's outputs, without N")
    parser.add_argument("--arg", metavar="KEY=VALUE", action="append", default=[], help="an argument of the class")
    parser.add_argument(
        "--targets",
        dest="kind",
        metavar="KIND",
        help="what a loss compares with: labels (class numbers), values (0 to 1, in the outputs' shape), "
        "signs (-1 and 1), distributions (shares that add up to 1)",
    )
    add_set(parser)
    parser.add_argument("--seed", type=int, default=0, help="of inputs and parameters (default: 0)")
    parser.add_argument("--rtol", type=float, default=1e-6, help="relative tolerance (default: 1e-6)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--json-file", metavar="FILE", type=Path, help="write the JSON object there, beside the text")


def run(args: argparse.Namespace) -> int:
    """Check and print the report; 1 when a gradient is wrong or a promise of the contract is broken."""
    from layernet.testing import suite

    jobs = _jobs(args)
    table = len(jobs) > 1 and not args.json
    if table:
        print(suite.HEADINGS)

    def done(report: Report) -> None:
        _progress("")
        if table:
            print(suite.row(report), flush=True)

    try:
        found = suite.run(jobs, done=done, progress=_progress, seed=args.seed, rtol=args.rtol)
    finally:
        _progress("")
    if args.json_file is not None:
        write_file(args.json_file, json.dumps(found.as_dict(), indent=1) + "\n")
    if args.json:
        print(json.dumps(found.as_dict()))
    else:
        print(f"\n{found}" if table else found.reports[0])
    return 0 if found.ok else 1


def _progress(what: str) -> None:
    """One line that replaces itself, for who waits at a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}")
        sys.stderr.flush()


def _jobs(args: argparse.Namespace) -> list[Job]:
    by_hand = args.shape is not None or args.arg or args.kind is not None
    if by_hand and len(args.targets) > 1:
        raise UsageError("--shape, --arg and --targets are for one class", "check them one by one")
    configs = [target for target in args.targets if target.endswith((".yaml", ".yml"))]
    if args.overrides and len(configs) < len(args.targets):
        raise UsageError("--set is for a config", "give a class its arguments with --arg KEY=VALUE")
    return [job for target in args.targets for job in _jobs_of(target, args)]


def _jobs_of(target: str, args: argparse.Namespace) -> list[Job]:
    from layernet.testing import suite

    by_hand = args.shape is not None or args.arg or args.kind is not None
    if target == "all" or target.endswith((".yaml", ".yml")):
        if by_hand:
            raise UsageError("--shape, --arg and --targets are for a class", "a config is changed with --set")
        return suite.all_built_in() if target == "all" else [suite.of_config(target, args.overrides)]
    if ":" not in target and not target.endswith(".py") and not by_hand:
        return suite.built_in(target)
    return [_by_hand(target, args)]


def _by_hand(target: str, args: argparse.Namespace) -> Job:
    from layernet.config.layer import load_part
    from layernet.core.layer import Layer
    from layernet.losses import Penalty
    from layernet.testing import suite
    from layernet.testing.cases import TARGETS

    made = load_part(target, args.arg)
    if isinstance(made, Penalty):
        if args.shape or args.kind:
            raise UsageError("a penalty takes neither --shape nor --targets", "it sees the parameters of a small net")
        return suite.of_loss(made)
    what = "layer" if isinstance(made, Layer) else "loss"
    if args.shape is None:
        of = "one input example" if what == "layer" else "the outputs for one example"
        raise UsageError(f"a {what} needs --shape, that of {of}", "for example --shape 8,8,4")
    shape = parse_shape(args.shape)
    if isinstance(made, Layer):
        if args.kind:
            raise UsageError("--targets is for a loss", f"{target} is a layer")
        return suite.of_layer(made, shape)
    declared = {"classes": "labels", "numbers": "values"}.get(made.targets)
    kind = args.kind or declared
    if kind not in TARGETS:
        got = "" if args.kind is None else f", got {args.kind!r}"
        hint = "for example --targets labels"
        if args.kind is None:
            hint += f'; or let {type(made).__name__} say targets = "classes" (labels) or "numbers" (values)'
        raise UsageError(f"a loss needs --targets, one of {', '.join(TARGETS)}{got}", hint)
    return suite.of_loss(made, shape, kind)
