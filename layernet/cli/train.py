"""`layernet train CONFIG`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from layernet.cli.common import add_compute, add_config, with_chosen

if TYPE_CHECKING:
    from layernet.train.experiment import Experiment

HELP = "train a net from a config"
EXAMPLE = "layernet train configs/digits_convnet.yaml --set train.epochs=5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config(parser)
    add_compute(parser)
    parser.add_argument("--runs", metavar="DIR", default="runs", help="where run directories are made (default: runs)")
    parser.add_argument("--name", help="name of the run (default: that of the config)")
    parser.add_argument("--profile", action="store_true", help="at the end show where the time went, layer by layer")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run", action="store_true", help="do everything but train: read data, try steps, estimate; write nothing"
    )
    instead.add_argument(
        "--overfit", type=int, metavar="N", help="only see whether the net learns N examples by heart; write nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Train; the exit code."""
    try:
        return _run(args)
    except KeyboardInterrupt as error:
        if not getattr(error, "__notes__", []):  # a run says how to go on with it
            error.add_note("no run was begun, and nothing was written")
        raise


def _run(args: argparse.Namespace) -> int:
    from layernet.train.experiment import Experiment

    experiment = Experiment.load(args.config, with_chosen(args))
    if args.dry_run:
        from layernet.train.rehearsal import rehearse

        print(rehearse(experiment, args.runs).table())
        return 0
    if args.overfit is not None:
        from layernet.train.overfit import overfit

        found = overfit(experiment, args.overfit)
        print(found.verdict())
        return 0 if found.reached else 1
    if args.profile:
        return _profiled(experiment, args)
    experiment.train(args.runs, args.name)
    return 0


def _profiled(experiment: Experiment, args: argparse.Namespace) -> int:
    from layernet.train.profile import Profile

    profile = Profile()
    experiment.config.callbacks.append(profile)
    try:
        experiment.train(args.runs, args.name)
    finally:
        times = profile.result()
        print(times.table() if times else f"no step was timed: the first {profile.skip} are left out")
    return 0
